/* SPDX-License-Identifier: MIT */
/* What an application may use. The same source runs on every allocator, scheduler, stack and
 * platform. Everything works by events and runs to completion; the calls marked «thread» block
 * the calling task and need a scheduler with threads (sched.coop): the composer refuses them
 * elsewhere, except that a call made outside a task returns KIT_ENOTSUP.
 * Codes are those of <unikit/rt/error.h>; pointers handed in are not kept unless it says so. */
#ifndef KIT_APP_H
#define KIT_APP_H

#include <unikit/net/net.h>
#include <unikit/rt/error.h>
#include <unikit/rt/format.h>
#include <unikit/rt/types.h>
#include <unikit/sched/sched.h>
#include <unikit/sched/sync.h>

/* ---- what the application defines ------------------------------------------------------- */

/* Called once when everything is up. 0: go on by events; anything else ends the image with that
 * exit code. An image composed with events=False ends with 0, too, and has no scheduler: no work,
 * tasks or timers. */
int init_application(void);
/* Optional: called on every turn of the main loop ... */
void process_application_logic(void);
/* ... optional: true keeps the loop turning instead of sleeping until the next event. */
bool has_pending_work(void);

/* ---- memory ------------------------------------------------------------------------------ */

/* As kit_alloc_alloc, _free and _realloc of the image's allocator. */
void *kit_memory_alloc(size_t size, size_t align);
void kit_memory_free(void *block, size_t size, size_t align);
void *kit_memory_realloc(void *block, size_t old_size, size_t new_size, size_t align);

/* ---- tasks, deferred work, timers (types in sched.h) -------------------------------------- */

void kit_task_post(struct kit_work *work);
/* spec as for kit_sched_spawn. */
int kit_task_spawn(const struct kit_task_spec *spec, struct kit_task **out);
int kit_task_join(struct kit_task *task, uint64_t deadline_ns); /* thread */
void kit_task_yield(void);                                      /* thread */
int kit_task_sleep_until(uint64_t deadline_ns);                 /* thread */
struct kit_task *kit_task_current(void);
/* Fires `delay_ns` from now. */
int kit_timer_start(struct kit_timer *timer, uint64_t delay_ns);
bool kit_timer_stop(struct kit_timer *timer);
/* In a loop that calls nothing else of unikit: lets others run if the task's slice is over. One
 * load and a branch; nothing in an image without preemption, where tasks run until they yield or
 * block. void kit_safe_point(void);                                  (rt/x86_64/inside.h) With
 * preemption every call from here is a safe point, too, and a task that reaches none for a while is
 * stopped wherever it is, with all its registers kept. So data that tasks share wants a mutex, and
 * code of the application's own or of its libraries that is not made for threads wants one around
 * it. Work, timers and callbacks still run to completion. */

/* The image's scheduler, for what sched/sync.h has. */
struct kit_sched *kit_task_scheduler(void);

/* ---- processors --------------------------------------------------------------------------- */

/* Processors of the image; tasks with KIT_TASK_ANYWHERE may run on any of them. */
uint32_t kit_cpu_count(void);
/* The one that runs this, from 0; another one after any call that blocks. Calls about the network,
 * and kit_console_read, MUST be made on processor 0; all others may be made anywhere. */
uint32_t kit_cpu_number(void);

/* ---- TCP and UDP (contracts in net.h: kit_net_tcp_*, kit_net_udp_*) ----------------------- */

int kit_tcp_listen(uint16_t port, kit_tcp_callback callback, void *argument, struct kit_tcp **out);
struct kit_tcp *kit_tcp_accept(struct kit_tcp *listener);
void kit_tcp_set_callback(struct kit_tcp *tcp, kit_tcp_callback callback, void *argument);
int kit_tcp_connect(const struct kit_address *remote, kit_tcp_callback callback, void *argument,
                    struct kit_tcp **out);
int kit_tcp_send(struct kit_tcp *tcp, const void *data, size_t length);
int kit_tcp_receive(struct kit_tcp *tcp, void *buffer, size_t length);
int kit_tcp_peek(struct kit_tcp *tcp, const void **data);
void kit_tcp_consume(struct kit_tcp *tcp, size_t length);
int kit_tcp_shutdown(struct kit_tcp *tcp);
void kit_tcp_close(struct kit_tcp *tcp);
void kit_tcp_abort(struct kit_tcp *tcp);
void kit_tcp_info(const struct kit_tcp *tcp, struct kit_tcp_info *out);
int kit_udp_open(uint16_t port, kit_udp_callback callback, void *argument, struct kit_udp **out);
int kit_udp_send(struct kit_udp *udp, const struct kit_address *to, const void *data,
                 size_t length);
int kit_udp_receive(struct kit_udp *udp, struct kit_address *from, void *buffer, size_t length);
void kit_udp_close(struct kit_udp *udp);
/* The image's own address; KIT_ENOENT without one. */
int kit_net_own_address(uint8_t family, struct kit_address *out);

/* «thread»: the blocking layer. A socket used with it MUST NOT have a callback of its own. */
int kit_tcp_wait_accept(struct kit_tcp *listener, uint64_t deadline_ns, struct kit_tcp **out);
int kit_tcp_wait_connect(const struct kit_address *remote, uint64_t deadline_ns,
                         struct kit_tcp **out);
/* As receive, but waits for the first byte. */
int kit_tcp_read(struct kit_tcp *tcp, void *buffer, size_t length, uint64_t deadline_ns);
/* Sends all of it: 0, or the error that stopped it. */
int kit_tcp_write(struct kit_tcp *tcp, const void *data, size_t length, uint64_t deadline_ns);

/* ---- packed files -------------------------------------------------------------------------- */

/* A file packed into the image at build time; read-only, there for ever. */
struct kit_file {
    const char *path; /* relative, «index.html», «css/site.css» */
    const char *type; /* media type by file name ending */
    const void *data;
    size_t size;
    uint64_t digest; /* of the contents: for entity tags */
};

/* The file of that path, or NULL. O(log files). */
const struct kit_file *kit_file_find(const char *path, size_t length);
/* The n-th file in order of paths, or NULL. */
const struct kit_file *kit_file_at(size_t index);

/* ---- clock, randomness, console, boot arguments, statistics -------------------------------- */

uint64_t kit_clock_now(void);  /* ns, monotonic */
uint64_t kit_clock_wall(void); /* ns since 1970 UTC; 0: unknown */
uint64_t kit_uptime(void);     /* ns since the image's first instruction */
int kit_random(void *buffer, size_t size);
/* Writes text to the console; what the console does not take is dropped and counted. */
void kit_print(const char *text, size_t length);
/* Formats (rt/format.h) one line of at most 255 bytes and writes it with a newline. */
void kit_log(const char *format, ...) __attribute__((format(printf, 1, 2)));
size_t kit_console_read(char *buffer, size_t max_length);
/* Boot option by name, «» for the argument string; NULL: not given. */
const char *kit_boot_option(const char *name);
/* The value of an option that the application declares in its image.py («port»), in the form of
 * rt/opt.h; an undeclared name panics. */
uint64_t kit_app_option(const char *name);
const char *kit_platform_name(void);
/* Ids of the image's components: the n-th, or NULL. */
const char *kit_component_at(size_t index);
/* Any of these may be NULL. Parts that the image does not have are zeroed. */
void kit_statistics(struct kit_alloc_stats *memory, struct kit_sched_stats *tasks,
                    struct kit_net_stats *network);
/* Ends the image. */
_Noreturn void kit_exit(int32_t code);

#endif
