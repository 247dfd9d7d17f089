/* SPDX-License-Identifier: MIT */
/* The console on an ISA serial line (16550A), by its ports, without interrupts but to be woken. */
#include <unikit/platform/qemu/guest/pvh.h>

enum {
    DATA = PVH_PORT_SERIAL,
    INTERRUPTS = PVH_PORT_SERIAL + 1,
    FIFO = PVH_PORT_SERIAL + 2,
    LINE_CONTROL = PVH_PORT_SERIAL + 3,
    MODEM_CONTROL = PVH_PORT_SERIAL + 4,
    STATUS = PVH_PORT_SERIAL + 5,
    STATUS_INPUT = 1,
    STATUS_ROOM = 0x20,
    FIFO_BYTES = 16
};

/* Bytes that the transmit FIFO takes for certain. Every access to the line is an exit: its state is
 * asked for only when this is used up, and a piece is written by one instruction. */
static uint32_t room;

static bool wait_room(void)
{
    for (unsigned patience = 10000; patience > 0; patience--)
        if ((pvh_in8(STATUS) & STATUS_ROOM) != 0) {
            room = FIFO_BYTES;
            return true;
        }
    return false;
}

size_t kit_pvh_console_write(console_interface_t *console, const char *data, size_t length)
{
    (void)console;
    for (size_t done = 0; done < length;) {
        if (room == 0 && !wait_room())
            return done; /* a line that stays full is slow; the rest is the caller's again */
        size_t part = length - done < room ? length - done : room;
        const char *from = data + done;
        done += part;
        room -= (uint32_t)part;
        __asm__ volatile("rep outsb" : "+S"(from), "+c"(part) : "d"((uint16_t)DATA) : "memory");
    }
    return length;
}

bool pvh_serial_ready(void)
{
    uint8_t status = pvh_in8(STATUS);
    return status != 0xff && (status & STATUS_INPUT) != 0;
}

PVH_COLD size_t kit_pvh_console_read(console_interface_t *console, char *buffer, size_t max_length)
{
    (void)console;
    size_t done = 0;
    while (done < max_length && pvh_serial_ready())
        buffer[done++] = (char)pvh_in8(DATA);
    return done;
}

void pvh_serial_open(void)
{
    pvh_out8(LINE_CONTROL, 0x03); /* eight bits, no parity */
    pvh_out8(FIFO, 0x07);         /* on, both emptied */
    pvh_out8(MODEM_CONTROL, 0x0b);
    pvh_out8(INTERRUPTS, 0x01); /* input */
}
