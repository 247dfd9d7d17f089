/* SPDX-License-Identifier: MIT */
/* The same layer under another name, to put one upon the other. */
#define LAYER kit_alloc_quota
#define LAYER_ID "alloc.quota"
#include "count.c"
