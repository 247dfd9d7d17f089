/* SPDX-License-Identifier: MIT */
/* Tasks of C code for test_tasks.py, which loads this as a library. */
#include <unikit/sched/sched.h>

struct tally {
    struct kit_sched *s;
    uint64_t rounds;
    uint64_t done;
    int64_t code;
};

void yields(void *argument);
void blocks(void *argument);
void counts(void *argument);

_Noreturn void kit_panic(const char *message)
{
    (void)message;
    __builtin_trap();
}

void yields(void *argument)
{
    struct tally *tally = argument;
    for (; tally->done < tally->rounds; tally->done++)
        kit_sched_yield(tally->s);
}

void blocks(void *argument)
{
    struct tally *tally = argument;
    tally->code = kit_sched_block(tally->s, tally->rounds == 0 ? KIT_NEVER : tally->rounds);
    tally->done++;
}

void counts(void *argument)
{
    struct tally *tally = argument;
    tally->done++;
}
