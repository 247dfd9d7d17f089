/* SPDX-License-Identifier: MIT */
/* A thread-local variable of another unit. */
#include <unikit/app.h>

extern _Thread_local int shared_by_name;
int other_sum(int number);

int other_sum(int number)
{
    return shared_by_name += number;
}
