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

size_t kit_pvh_console_write(console_interface_t *console, const char *data, size_t length)
{
    (void)console;
    for (size_t done = 0; done < length; done++) {
        /* An empty FIFO takes sixteen; a line that stays full is slow, and what is not taken is
         * the caller's again. */
        if (done % FIFO_BYTES == 0) {
            unsigned patience = 10000;
            while ((pvh_in8(STATUS) & STATUS_ROOM) == 0)
                if (--patience == 0)
                    return done;
        }
        pvh_out8(DATA, (uint8_t)data[done]);
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
