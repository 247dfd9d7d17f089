/* SPDX-License-Identifier: MIT */
/* The console is standard input and output, left in the mode they came in: setting O_NONBLOCK would
 * change the terminal for the shell as well, so each transfer asks ppoll first and moves at most
 * what then cannot block (a pipe that polls writable takes PIPE_BUF bytes).
 *
 * A slow reader gets OUTPUT_PATIENCE once to make room, like a machine whose monitor drains its
 * console; after that nothing waits until the reader has caught up, so a dead reader costs the
 * image that time once. A closed output swallows nothing and never ends the image (SIGPIPE is
 * ignored, report.c). */
#include <unikit/platform/linux/guest/linux.h>

enum { PIPE_BUF = 4096 };
#define OUTPUT_PATIENCE (500 * KIT_NS_PER_MS)

static bool output_ready(void)
{
    struct linux_pollfd file = {1, POLLOUT, 0};
    long ready = kit_linux_poll(&file, 1, kit_linux.output_stalled ? 0 : OUTPUT_PATIENCE, false);
    kit_linux.output_stalled = ready == 0;
    if (ready > 0 && (file.revents & (POLLERR | POLLNVAL)) != 0)
        kit_linux.output_closed = true;
    return ready > 0 && !kit_linux.output_closed;
}

size_t kit_linux_console_write(console_interface_t *console, const char *data, size_t length)
{
    (void)console;
    size_t done = 0;
    while (done < length && !kit_linux.output_closed && output_ready()) {
        size_t part = length - done < PIPE_BUF ? length - done : PIPE_BUF;
        long count = kit_syscall3(SYS_WRITE, 1, (uintptr_t)data + done, part);
        if (count == -LINUX_EPIPE || count == -LINUX_EBADF)
            kit_linux.output_closed = true;
        if (count <= 0)
            break;
        done += (size_t)count;
    }
    return done;
}

size_t kit_linux_console_read(console_interface_t *console, char *buffer, size_t max_length)
{
    (void)console;
    struct linux_pollfd file = {0, POLLIN, 0};
    if (kit_linux.input_closed || max_length == 0 || kit_linux_poll(&file, 1, 0, false) <= 0)
        return 0;
    long count = kit_syscall3(SYS_READ, 0, (uintptr_t)buffer, max_length);
    if (count > 0)
        return (size_t)count;
    if (count != -LINUX_EAGAIN && count != -LINUX_EINTR)
        kit_linux.input_closed = true; /* end of file, or a terminal that is gone */
    return 0;
}
