/* SPDX-License-Identifier: MIT */
/* Blocking TCP over the event interface: a call that finds nothing to do files its task under the
 * socket and blocks; the socket's callback wakes every task that is filed there. Tasks are found
 * through a hash of the handle, so that several may wait for one socket (a reader and a writer)
 * and one event costs a look into one short list.
 *
 * Nothing is lost between KIT_EAGAIN and block(): events come from kit_net_poll alone, which the
 * main loop calls, never a task. */
#include <unikit/image/runtime/runtime.h>

enum { BUCKETS = 64 };

struct waiter {
    struct kit_list link;
    struct kit_tcp *tcp;
    struct kit_task *task;
};

static struct kit_list buckets[BUCKETS];

static struct kit_list *bucket_of(const struct kit_tcp *tcp)
{
    uint64_t hash = (uint64_t)(uintptr_t)tcp * UINT64_C(0x9e3779b97f4a7c15);
    struct kit_list *bucket = &buckets[hash >> 58];
    if (bucket->next == NULL)
        kit_list_init(bucket);
    return bucket;
}

static void wake_waiters(void *argument, struct kit_tcp *tcp, uint32_t events)
{
    (void)argument;
    (void)events;
    struct kit_list *bucket = bucket_of(tcp);
    for (struct kit_list *at = bucket->next; at != bucket; at = at->next) {
        struct waiter *waiter = KIT_CONTAINER_OF(at, struct waiter, link);
        if (waiter->tcp == tcp)
            kit_sched_wake(kit_runtime.sched, waiter->task);
    }
}

/* Waits for any event of the socket. */
static int wait_event(struct kit_tcp *tcp, uint64_t deadline_ns)
{
    struct waiter waiter = {.tcp = tcp, .task = kit_sched_current(kit_runtime.sched)};
    if (waiter.task == NULL)
        return KIT_ENOTSUP;
    kit_net_tcp_set_callback(tcp, wake_waiters, NULL);
    kit_list_push_back(bucket_of(tcp), &waiter.link);
    int rc = kit_sched_block(kit_runtime.sched, deadline_ns);
    kit_list_remove(&waiter.link);
    return rc;
}

int kit_tcp_wait_accept(struct kit_tcp *listener, uint64_t deadline_ns, struct kit_tcp **out)
{
    KIT_INSIDE;
    KIT_RUNTIME_FIRST_ONLY("kit_tcp_wait_accept");
    for (;;) {
        struct kit_tcp *tcp = kit_net_tcp_accept(listener);
        if (tcp != NULL) {
            kit_net_tcp_set_callback(tcp, wake_waiters, NULL);
            *out = tcp;
            return 0;
        }
        int rc = wait_event(listener, deadline_ns);
        if (rc != 0)
            return rc;
    }
}

/* 0: established; KIT_EAGAIN: not yet; else why it failed. */
static int connect_state(struct kit_tcp *tcp)
{
    struct kit_tcp_info info;
    kit_net_tcp_info(tcp, &info);
    if (info.error != 0)
        return info.error;
    if (info.state == KIT_TCP_CLOSED)
        return KIT_EREFUSED;
    return info.state >= KIT_TCP_ESTABLISHED ? 0 : KIT_EAGAIN;
}

int kit_tcp_wait_connect(const struct kit_address *remote, uint64_t deadline_ns,
                         struct kit_tcp **out)
{
    KIT_INSIDE;
    KIT_RUNTIME_FIRST_ONLY("kit_tcp_wait_connect");
    struct kit_tcp *tcp;
    if (kit_sched_current(kit_runtime.sched) == NULL)
        return KIT_ENOTSUP;
    int rc = kit_net_tcp_connect(kit_runtime.net, remote, wake_waiters, NULL, &tcp);
    if (rc != 0)
        return rc;
    while ((rc = connect_state(tcp)) == KIT_EAGAIN) {
        rc = wait_event(tcp, deadline_ns);
        if (rc != 0)
            break;
    }
    if (rc != 0) {
        kit_net_tcp_abort(tcp);
        return rc;
    }
    *out = tcp;
    return 0;
}

int kit_tcp_read(struct kit_tcp *tcp, void *buffer, size_t length, uint64_t deadline_ns)
{
    KIT_INSIDE;
    KIT_RUNTIME_FIRST_ONLY("kit_tcp_read");
    for (;;) {
        int got = kit_net_tcp_receive(tcp, buffer, length);
        if (got != KIT_EAGAIN)
            return got;
        int rc = wait_event(tcp, deadline_ns);
        if (rc != 0)
            return rc;
    }
}

int kit_tcp_write(struct kit_tcp *tcp, const void *data, size_t length, uint64_t deadline_ns)
{
    KIT_INSIDE;
    KIT_RUNTIME_FIRST_ONLY("kit_tcp_write");
    const unsigned char *at = data;
    while (length != 0) {
        int taken = kit_net_tcp_send(tcp, at, length);
        if (taken > 0) {
            at += taken;
            length -= (size_t)taken;
            continue;
        }
        if (taken != KIT_EAGAIN)
            return taken;
        int rc = wait_event(tcp, deadline_ns);
        if (rc != 0)
            return rc;
    }
    return 0;
}
