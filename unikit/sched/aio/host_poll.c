/* SPDX-License-Identifier: MIT */
/* Waiting for files. The set of files is the selector's that asyncio's transports register with;
 * only the waiting is done here, to the nanosecond where the kernel can. */
#include <errno.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <unikit/sched/aio/host_aio.h>

enum { POLL_EVENTS = 128, SELECTOR_READ = 1, SELECTOR_WRITE = 2 };

static int poll_wait(int epoll, struct epoll_event *events, uint64_t timeout_ns)
{
    static bool coarse; /* the kernel does not know epoll_pwait2 */
#ifdef SYS_epoll_pwait2
    if (!coarse) {
        struct timespec timeout = {.tv_sec = (time_t)(timeout_ns / 1000000000),
                                   .tv_nsec = (long)(timeout_ns % 1000000000)};
        long found = syscall(SYS_epoll_pwait2, epoll, events, POLL_EVENTS,
                             timeout_ns == KIT_NEVER ? NULL : &timeout, NULL, 0);
        if (found >= 0 || (errno != ENOSYS && errno != EPERM))
            return (int)found;
        coarse = true;
    }
#endif
    uint64_t most_ms = 1000 * 3600 * 24;
    uint64_t ms = timeout_ns / 1000000 + (timeout_ns % 1000000 != 0);
    return epoll_wait(epoll, events, POLL_EVENTS,
                      timeout_ns == KIT_NEVER ? -1 : (int)(ms < most_ms ? ms : most_ms));
}

/* What EpollSelector.select returns: a list of (key, events). */
static PyObject *poll_list(struct core *core, const struct epoll_event *events, int count)
{
    PyObject *list = PyList_New(0);
    for (int i = 0; list != NULL && i < count; i++) {
        PyObject *fd = PyLong_FromLong(events[i].data.fd);
        PyObject *key = fd ? PyDict_GetItemWithError(core->epoll_map, fd) : NULL;
        Py_XDECREF(fd);
        if (key == NULL) {
            if (PyErr_Occurred())
                Py_CLEAR(list);
            continue; /* unregistered meanwhile */
        }
        PyObject *wanted = PyObject_GetAttrString(key, "events");
        long mask = wanted ? PyLong_AsLong(wanted) : -1;
        Py_XDECREF(wanted);
        mask &= (events[i].events & ~(uint32_t)EPOLLIN ? SELECTOR_WRITE : 0) |
                (events[i].events & ~(uint32_t)EPOLLOUT ? SELECTOR_READ : 0);
        PyObject *pair = PyErr_Occurred() ? NULL : Py_BuildValue("(Ol)", key, mask);
        if (pair == NULL || PyList_Append(list, pair) < 0)
            Py_CLEAR(list);
        Py_XDECREF(pair);
    }
    return list;
}

int core_poll(struct core *core, uint64_t deadline_ns)
{
    struct epoll_event events[POLL_EVENTS];
    uint64_t now_ns = kit_env_now_ns(core->env);
    uint64_t timeout_ns = deadline_ns == KIT_NEVER ? KIT_NEVER
                          : deadline_ns > now_ns   ? deadline_ns - now_ns
                                                   : 0;
    int found;
    bool still = core->virtual_time && timeout_ns != 0;
    if (timeout_ns == 0 || still) {
        found = poll_wait(core->epoll, events, 0);
    } else {
        Py_BEGIN_ALLOW_THREADS;
        found = poll_wait(core->epoll, events, timeout_ns);
        Py_END_ALLOW_THREADS;
        now_ns = kit_env_now_ns(core->env);
    }
    core->polled_ns = now_ns;
    if (found < 0 && errno != EINTR) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    if (PyErr_CheckSignals() < 0)
        return -1;
    PyObject *done = NULL;
    if (found <= 0) {
        if (!still)
            return 0;
        done = PyObject_CallMethod((PyObject *)core, "_wait", "K", (unsigned long long)deadline_ns);
    } else {
        PyObject *list = poll_list(core, events, found);
        if (list != NULL)
            done = PyObject_CallMethod((PyObject *)core, "_process_events", "O", list);
        Py_XDECREF(list);
    }
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}
