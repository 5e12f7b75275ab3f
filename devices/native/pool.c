/* The thread pool: fixed threads that share one loop at a time, the caller being the first of them.
 *
 * Waiting spins for a short while, since kernels follow each other within microseconds, then gives the core away again and
 * again for some milliseconds, since a core that fell asleep is slow to wake, and then sleeps, so that an idle program costs
 * nothing. The first error of a task is the error of the launch. Start with `launch_tasks`.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include "runtime.h"

enum { MAX_THREADS = 64, SPINS = 4000, YIELDS = 8000 };

static int threads = 1, pinned_cores[MAX_THREADS], pinned;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t woken = PTHREAD_COND_INITIALIZER, finished = PTHREAD_COND_INITIALIZER;

static task *job;
static void *job_shared;
static struct launch job_launch;
static atomic_uint round_number; /* counts launches: a thread that sees it change has work */
static atomic_int pending, first_error, arrived;
static atomic_uint phase; /* counts barriers */

static void breathe(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__) || defined(__arm__)
    __asm__ volatile("yield" ::: "memory");
#else
    atomic_signal_fence(memory_order_seq_cst);
#endif
}

/* One step of waiting; false when it is time to sleep. */
static int patient(int step) {
    if (step < SPINS) breathe();
    else if (step < SPINS + YIELDS) sched_yield();
    else return 0;
    return 1;
}

static void pin(int number) {
    cpu_set_t set;
    if (!pinned) return;
    CPU_ZERO(&set);
    CPU_SET(pinned_cores[number % pinned], &set);
    sched_setaffinity(0, sizeof set, &set); /* 0: the calling thread; where it is refused the thread runs anywhere */
}

static void run_task(int number) {
    int error = job(number, &job_launch, job_shared), none = 0;
    if (error) atomic_compare_exchange_strong(&first_error, &none, error);
}

static unsigned wait_for_round(unsigned seen) {
    unsigned now;
    for (int step = 0; patient(step); step++) {
        now = atomic_load_explicit(&round_number, memory_order_acquire);
        if (now != seen) return now;
    }
    pthread_mutex_lock(&lock);
    while ((now = atomic_load(&round_number)) == seen) pthread_cond_wait(&woken, &lock);
    pthread_mutex_unlock(&lock);
    return now;
}

static void *work(void *argument) {
    int number = (int)(intptr_t)argument;
    unsigned seen = 0;
    pin(number);
    own_workspace(number);
    for (;;) {
        seen = wait_for_round(seen);
        if (number < job_launch.tasks) run_task(number);
        if (atomic_fetch_sub_explicit(&pending, 1, memory_order_acq_rel) == 1) {
            pthread_mutex_lock(&lock);
            pthread_cond_signal(&finished);
            pthread_mutex_unlock(&lock);
        }
    }
    return NULL;
}

int start_pool(int wanted, const int *cores, int core_count) {
    if (wanted > MAX_THREADS) return USAGE;
    for (pinned = 0; pinned < core_count && pinned < MAX_THREADS; pinned++) pinned_cores[pinned] = cores[pinned];
    pin(0);
    for (threads = 1; threads < wanted; threads++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, work, (void *)(intptr_t)threads)) return NO_MEMORY;
        pthread_detach(thread);
    }
    return OK;
}

int launch_tasks(task *run, void *shared, int tasks) {
    if (tasks <= 0 || tasks > threads) tasks = threads;
    job = run;
    job_shared = shared;
    job_launch = (struct launch){&job_launch, tasks};
    atomic_store(&first_error, 0);
    atomic_store(&arrived, 0);
    if (threads == 1) {
        run_task(0);
        return atomic_load(&first_error);
    }
    atomic_store_explicit(&pending, threads - 1, memory_order_release);
    pthread_mutex_lock(&lock);
    atomic_fetch_add_explicit(&round_number, 1, memory_order_release);
    pthread_cond_broadcast(&woken);
    pthread_mutex_unlock(&lock);
    run_task(0);
    for (int step = 0; atomic_load_explicit(&pending, memory_order_acquire) && patient(step);) step++;
    if (atomic_load_explicit(&pending, memory_order_acquire)) {
        pthread_mutex_lock(&lock);
        while (atomic_load(&pending)) pthread_cond_wait(&finished, &lock);
        pthread_mutex_unlock(&lock);
    }
    return atomic_load(&first_error);
}

int barrier(int number, struct launch *launch) {
    (void)number;
    if (launch->tasks < 2) return 0;
    unsigned seen = atomic_load(&phase);
    if (atomic_fetch_add(&arrived, 1) + 1 == launch->tasks) {
        atomic_store(&arrived, 0);
        atomic_fetch_add(&phase, 1);
        return 0;
    }
    for (int step = 0; atomic_load_explicit(&phase, memory_order_acquire) == seen;) {
        if (atomic_load(&first_error)) return -1; /* a task that failed will not come */
        if (patient(step)) step++;
        else sched_yield();
    }
    return 0;
}
