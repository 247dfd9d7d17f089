/* SPDX-License-Identifier: MIT */
/* A coverage-guided fuzzer for one process, as gcc has none. The target is compiled with
 * -fsanitize-coverage=trace-pc, this driver without; inputs that reach new edges are kept and
 * mutated further (Zalewski, «Technical whitepaper for afl-fuzz», 2016, describes the method).
 *
 *     program RUNS SEED LENGTH [FOLDER]   fuzzes, starting from the files of FOLDER
 *     program FILE                        runs one input
 *
 * On a crash the input is written to standard error as hexadecimal digits. */
#ifndef TESTS_FUZZ_DRIVER_H
#define TESTS_FUZZ_DRIVER_H

#include <stddef.h>
#include <stdint.h>

/* The target: runs one input; calls abort() for what must not be. */
void fuzz_one(const uint8_t *data, size_t size);

/* Prints what the target wants to say about all its runs. */
void fuzz_summary(void);

#endif
