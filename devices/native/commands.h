/* The modes of the program. Each returns the exit status. */
#ifndef EDGEPRUNE_COMMANDS_H
#define EDGEPRUNE_COMMANDS_H

#include <stdint.h>

/* Groups of `group` calls, until `samples` of them and `seconds` are both reached, after `warmup` calls. */
struct measurement {
    long group, warmup, samples;
    double seconds;
};

int facts(void);
int check(char *const *inputs, int input_count, char *const *outputs, int output_count);
int measure(const struct measurement *wanted, char *const *inputs, int input_count);
int serve(void);

/* Take the samples, then write them as lines {"samples_ns":[..]}. */
int take_samples(const struct measurement *wanted);

#endif
