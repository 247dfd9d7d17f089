/* SPDX-License-Identifier: MIT */
/* Seconds since 1970 to a civil date (proleptic Gregorian, UTC, no leap seconds). */
#ifndef KIT_RT_DATE_H
#define KIT_RT_DATE_H

#include <unikit/rt/types.h>

struct kit_date {
    uint32_t year;
    uint8_t month; /* 1 ... 12 */
    uint8_t day;   /* 1 ... 31 */
    uint8_t hour, minute, second;
    uint8_t weekday; /* 0: Sunday */
};

/* Years are made to start in March, so that the leap day is the last of its year; an era is the
 * 400 years, 146097 days, after which the calendar repeats. */
KIT_INLINE struct kit_date kit_date_of(uint64_t seconds)
{
    uint64_t days = seconds / 86400, second = seconds % 86400;
    uint64_t shifted = days + 719468; /* since 0000-03-01 */
    uint64_t era = shifted / 146097, in_era = shifted % 146097;
    uint64_t year = (in_era - in_era / 1460 + in_era / 36524 - in_era / 146096) / 365;
    uint64_t in_year = in_era - (365 * year + year / 4 - year / 100);
    uint64_t month = (5 * in_year + 2) / 153; /* from March */
    return (struct kit_date){
        .year = (uint32_t)(era * 400 + year + (month >= 10)),
        .month = (uint8_t)(month < 10 ? month + 3 : month - 9),
        .day = (uint8_t)(in_year - (153 * month + 2) / 5 + 1),
        .hour = (uint8_t)(second / 3600),
        .minute = (uint8_t)(second / 60 % 60),
        .second = (uint8_t)(second % 60),
        .weekday = (uint8_t)((days + 4) % 7),
    };
}

/* The last `count` decimal digits of a value. */
KIT_INLINE void kit_date_digits(char *at, unsigned count, uint64_t value)
{
    for (; count != 0; value /= 10)
        at[--count] = (char)('0' + value % 10);
}

#endif
