/* Instruction sets of the processor, asked of the kernel or of the processor itself; never tried out. */
#include <string.h>

#include "runtime.h"

#if defined(__linux__) && (defined(__aarch64__) || defined(__arm__))
#include <sys/auxv.h>
#ifndef AT_HWCAP2
#define AT_HWCAP2 26
#endif
#endif

struct feature {
    const char *name;
    int (*is_there)(void);
};

#if defined(__x86_64__)

static void cpuid(unsigned leaf, unsigned part, unsigned registers[4]) {
    __asm__ volatile("cpuid"
                     : "=a"(registers[0]), "=b"(registers[1]), "=c"(registers[2]), "=d"(registers[3])
                     : "a"(leaf), "c"(part));
}

static unsigned leaf_bit(unsigned leaf, int at, int bit) {
    unsigned registers[4];
    cpuid(0, 0, registers);
    if (registers[0] < leaf) return 0;
    cpuid(leaf, 0, registers);
    return registers[at] >> bit & 1;
}

/* Whether the operating system keeps the registers that these bits of XCR0 stand for. */
static int saves(unsigned bits) {
    if (!leaf_bit(1, 2, 27)) return 0;
    unsigned low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (low & bits) == bits;
}

enum { YMM = 0x6, ZMM = 0xe6, EBX = 1, ECX = 2 };
static int has_avx(void) { return saves(YMM) && leaf_bit(1, ECX, 28); }
static int has_fma(void) { return saves(YMM) && leaf_bit(1, ECX, 12); }
static int has_f16c(void) { return saves(YMM) && leaf_bit(1, ECX, 29); }
static int has_avx2(void) { return saves(YMM) && leaf_bit(7, EBX, 5); }
static int has_bmi2(void) { return (int)leaf_bit(7, EBX, 8); }
static int has_avx512f(void) { return saves(ZMM) && leaf_bit(7, EBX, 16); }
static int has_avx512dq(void) { return saves(ZMM) && leaf_bit(7, EBX, 17); }
static int has_avx512bw(void) { return saves(ZMM) && leaf_bit(7, EBX, 30); }
static int has_avx512vl(void) { return saves(ZMM) && leaf_bit(7, EBX, 31); }

static const struct feature known[] = {
    {"avx", has_avx},           {"avx2", has_avx2},         {"fma", has_fma},
    {"f16c", has_f16c},         {"bmi2", has_bmi2},         {"avx512f", has_avx512f},
    {"avx512dq", has_avx512dq}, {"avx512bw", has_avx512bw}, {"avx512vl", has_avx512vl},
};

#elif defined(__aarch64__)

static int capability(int bit) { return (int)(getauxval(AT_HWCAP) >> bit & 1); }
static int has_neon(void) { return capability(1); }     /* HWCAP_ASIMD */
static int has_fullfp16(void) { return capability(10); } /* HWCAP_ASIMDHP */
static int has_dotprod(void) { return capability(20); }  /* HWCAP_ASIMDDP */

static const struct feature known[] = {{"neon", has_neon}, {"fullfp16", has_fullfp16}, {"dotprod", has_dotprod}};

#elif defined(__arm__)

static int capability(int bit) { return (int)(getauxval(AT_HWCAP) >> bit & 1); }
static int has_neon(void) { return capability(12); } /* HWCAP_NEON */
static int has_vfp4(void) { return capability(16); } /* HWCAP_VFPv4 */

static const struct feature known[] = {{"neon", has_neon}, {"vfp4", has_vfp4}};

#else

static const struct feature known[] = {{"", NULL}};

#endif

static int is_there(const char *name, size_t length) {
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strlen(known[i].name) == length && !strncmp(known[i].name, name, length)) return known[i].is_there();
    return 0; /* what is not known is not promised */
}

const char *missing_feature(const char *wanted) {
    static char name[32];
    while (*wanted) {
        size_t length = strcspn(wanted, " ");
        if (length && !is_there(wanted, length)) {
            size_t shown = length < sizeof name - 1 ? length : sizeof name - 1;
            memcpy(name, wanted, shown);
            name[shown] = '\0';
            return name;
        }
        wanted += length;
        wanted += strspn(wanted, " ");
    }
    return NULL;
}
