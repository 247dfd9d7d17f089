/* SPDX-License-Identifier: MIT */
/* Network byte order: loads and stores at any alignment, never by casting. The shifts compile to
 * one load and one byte swap. */
#ifndef KIT_NET_WIRE_BYTES_H
#define KIT_NET_WIRE_BYTES_H

#include <unikit/rt/types.h>

KIT_INLINE uint16_t kit_load16(const uint8_t *at)
{
    return (uint16_t)(at[0] << 8 | at[1]);
}

KIT_INLINE uint32_t kit_load32(const uint8_t *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

KIT_INLINE void kit_store16(uint8_t *at, uint16_t value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

KIT_INLINE void kit_store32(uint8_t *at, uint32_t value)
{
    at[0] = (uint8_t)(value >> 24);
    at[1] = (uint8_t)(value >> 16);
    at[2] = (uint8_t)(value >> 8);
    at[3] = (uint8_t)value;
}

#endif
