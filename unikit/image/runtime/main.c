/* SPDX-License-Identifier: MIT */
/* The life of an image, in the order of the basic unikernel framework: console, memory, scheduler,
 * network, further consoles, init_application; then for ever: receive and handle packets, run what
 * is due, process_application_logic, and sleep when nothing did anything. A composition without a
 * scheduler ends when init_application has returned: the loop is not in the image.
 *
 * An image ends by kit_exit, by a nonzero result of init_application, or here when nothing can ever
 * happen again: no timer, no network, nobody reads the console. If no task is left it is simply
 * finished (code 0: hello ends this way); tasks that are still blocked are a deadlock, which is a
 * bug and panics. */
#include <unikit/image/runtime/runtime.h>
#include <unikit/rt/x86_64/tls.h>

struct kit_runtime kit_runtime;

/* Optional in an application: absent ones are null and their calls vanish. */
__attribute__((weak)) void process_application_logic(void);
__attribute__((weak)) bool has_pending_work(void);
/* deadlock.c, with a scheduler that has threads. */
__attribute__((weak)) void kit_runtime_tell_deadlock(void);

void kit_panic(const char *message)
{
    KIT_INSIDE;
    runtime_environment_t *env = kit_runtime.state.runtime;
    if (env != NULL)
        kit_env_panic_handler(env, message);
    __builtin_trap();
}

static __attribute__((cold, noinline)) void say(const char *text)
{
    kit_print(text, strlen(text));
}

/* A component that does not open: says which and why, for people. */
static __attribute__((cold)) int refuse(const char *id, int code)
{
    const char *why = code == KIT_ENOMEM    ? "too little memory"
                      : code == KIT_EINVAL  ? "an option is out of range"
                      : code == KIT_ENOTSUP ? "a part it needs is missing"
                                            : "it failed to start";
    say("cannot start ");
    say(id);
    say(": ");
    say(why);
    say("\n");
    return KIT_EXIT_REFUSED;
}

static int init_memory(void *base, uint64_t size)
{
    size_t at;
    int rc = kit_alloc_compose(kit_composition.alloc, kit_composition.alloc_count, base, size,
                               &kit_runtime.alloc, &at);
    return rc == 0 ? 0 : refuse(kit_composition.alloc[at].component->id, rc);
}

static int open_tls(runtime_environment_t *env)
{
    int rc = kit_runtime_open_tls(env);
    if (rc != KIT_ENOTSUP)
        return rc == 0 ? 0 : refuse("thread-local variables", rc);
    say("cannot start thread-local variables: the processor or its host lacks FSGSBASE\n");
    return KIT_EXIT_REFUSED;
}

/* With thread-local variables it must not be inlined, lest something that depends on the thread
 * pointer be computed before that is set. */
#if KIT_WITH_TLS
__attribute__((noinline))
#endif
static int
begin_application(void)
{
    return init_application();
}

static int open_scheduler(runtime_environment_t *env)
{
    int rc = kit_composition.sched->open(kit_composition.sched_options, env, kit_runtime.alloc,
                                         &kit_runtime.sched);
    return rc == 0 ? 0 : refuse(kit_composition.sched->id, rc);
}

/* The interface the stack runs on: the composition's own, or the platform's. */
static int find_network(runtime_environment_t *env, network_interface_t **out)
{
    const struct kit_netif_component *netif = kit_composition.netif;
    if (netif == NULL) {
        *out = env->network;
        return env->network != NULL ? 0 : KIT_ENOTSUP;
    }
    network_interface_t *ends[KIT_NETIF_ENDS_MAX] = {NULL};
    struct kit_netif_base base = {.env = env};
    if (netif->features & KIT_NETIF_LAYER) {
        base.inner = env->network;
        if (base.inner == NULL)
            return KIT_ENOTSUP;
    }
    const uint64_t *options = kit_composition.netif_options;
    size_t size =
        netif->build != NULL ? netif->build_size(options, base.inner) : netif->memory_size(options);
    if (size == 0)
        return KIT_EINVAL;
    void *memory = kit_alloc_alloc(kit_runtime.alloc, size, 64);
    if (memory == NULL)
        return KIT_ENOMEM;
    int rc = netif->build != NULL ? netif->build(options, memory, size, &base, ends)
                                  : netif->open(options, memory, size, ends);
    *out = ends[0];
    return rc;
}

static struct kit_address ipv4(uint32_t address)
{
    struct kit_address out = {.family = address != 0 ? 4 : 0};
    for (unsigned i = 0; i < 4; i++)
        out.bytes[i] = (uint8_t)(address >> (24 - 8 * i));
    return out;
}

static int open_network(runtime_environment_t *env)
{
    network_interface_t *network = NULL;
    int rc = find_network(env, &network);
    if (rc != 0)
        return refuse(kit_composition.netif != NULL ? kit_composition.netif->id
                                                    : "the network: no interface was given",
                      rc);
    kit_runtime.network = network;
    rc = kit_composition.net->open(kit_composition.net_options, env, network, kit_runtime.alloc,
                                   &kit_runtime.net);
    struct kit_address own;
    if (rc == 0 && kit_composition.default_address != 0 &&
        kit_net_address(kit_runtime.net, 4, &own) != 0) {
        struct kit_address address = ipv4(KIT_OPT_PREFIX_ADDRESS(kit_composition.default_address));
        struct kit_address gateway = ipv4(kit_composition.default_gateway);
        rc = kit_net_configure(kit_runtime.net, &address,
                               KIT_OPT_PREFIX_LENGTH(kit_composition.default_address), &gateway);
    }
    return rc == 0 ? 0 : refuse(kit_composition.net->id, rc);
}

static int open_consoles(runtime_environment_t *env)
{
    struct kit_console_parts parts = {
        .env = env, .alloc = kit_runtime.alloc, .net = kit_runtime.net};
    console_interface_t *last = env->console;
    for (uint32_t i = 0; i < kit_composition.console_count; i++) {
        const struct kit_console_choice *choice = &kit_composition.consoles[i];
        int rc = choice->component->open(choice->options, &parts, &last);
        if (rc != 0)
            return refuse(choice->component->id, rc);
        if (parts.inner_count < KIT_CONSOLE_INNER_MAX)
            parts.inner[parts.inner_count++] = last;
    }
    kit_runtime.console = last;
    return 0;
}

int init_unikernel(runtime_environment_t *env)
{
    kit_runtime.state.runtime = env;
    kit_runtime.console = env->console;
    if (kit_composition.boot_option_count != 0) {
        int refused = kit_runtime_read_options(env);
        if (refused != 0)
            return refused;
    }
    int rc = init_memory(env->memory.base_address, env->memory.size);
    if (rc != 0)
        return rc;
    if (kit_runtime_layer_can(KIT_ALLOC_PAGES))
        kit_runtime_give_pages(env);
    if (KIT_WITH_FACES && (rc = kit_runtime_make_faces(env)) != 0)
        return refuse(kit_composition.alloc[0].component->id, rc);
    if (KIT_WITH_TLS && (rc = open_tls(env)) != 0)
        return rc;
    if (kit_composition.sched != NULL && (rc = open_scheduler(env)) != 0)
        return rc;
    if (kit_composition.net != NULL && (rc = open_network(env)) != 0)
        return rc;
    if (kit_composition.console_count != 0 && (rc = open_consoles(env)) != 0)
        return rc;
    if (KIT_WITH_CPUS && kit_composition.sched != NULL &&
        (rc = kit_runtime_start_processors(env)) != 0)
        return refuse("a processor", rc);
    if (kit_runtime_layer_can(KIT_ALLOC_LEAKS)) {
        struct kit_alloc_stats stats;
        kit_alloc_stats(kit_runtime.alloc, &stats);
        kit_runtime.system_requests = stats.allocations;
    }
    kit_runtime.state.initialized = true;
    return begin_application();
}

/* Nothing can ever happen again. */
_Noreturn void kit_runtime_finish(void)
{
    if (kit_composition.sched->features & KIT_SCHED_THREADS) {
        struct kit_sched_stats stats;
        kit_sched_stats(kit_runtime.sched, &stats);
        if (stats.tasks != 0 && kit_runtime_tell_deadlock != NULL)
            kit_runtime_tell_deadlock();
        if (stats.tasks != 0)
            kit_panic("deadlock: every task is blocked and nothing can wake one");
    }
    kit_exit(0);
}

/* Whether the main loop has more to do than to run tasks: then they are stopped for it. */
static bool has_other_duties(void)
{
    return kit_composition.net != NULL || kit_runtime.console_wanted ||
           process_application_logic != NULL;
}

static void enter_low_power_state(runtime_environment_t *env)
{
    if (KIT_WITH_PREEMPTION)
        kit_runtime_unwatch();
    /* A console that holds text back tries again before the silence (console.h). */
    if (kit_composition.console_count != 0)
        kit_console_write(kit_runtime.console, NULL, 0);
    uint64_t deadline_ns = kit_sched_deadline_ns(kit_runtime.sched);
    uint32_t wake = kit_runtime.console_wanted ? KIT_WAKE_CONSOLE : 0;
    if (kit_composition.net != NULL) {
        uint64_t net_ns = kit_net_deadline_ns(kit_runtime.net);
        deadline_ns = net_ns < deadline_ns ? net_ns : deadline_ns;
        const struct kit_netif_component *netif = kit_composition.netif;
        if (netif == NULL || (netif->features & KIT_NETIF_LAYER))
            wake |= KIT_WAKE_NETWORK;
        if (netif != NULL && netif->deadline_ns != NULL) { /* frames it holds back */
            net_ns = netif->deadline_ns(kit_runtime.network);
            deadline_ns = net_ns < deadline_ns ? net_ns : deadline_ns;
        }
    }
    if (deadline_ns == KIT_NEVER && wake == 0 && !KIT_WITH_CPUS)
        kit_runtime_finish();
    if (deadline_ns == 0)
        return;
    uint32_t woken = KIT_WITH_CPUS ? kit_runtime_sleep(env, deadline_ns, wake | KIT_WAKE_CPU)
                                   : kit_env_wait(env, deadline_ns, wake);
    if (woken & KIT_WAKE_CONSOLE & wake) {
        kit_runtime.console_rang = true;
        kit_runtime.console_wanted = false; /* until the application reads again */
    }
}

static bool handle_packets(void)
{
    if (kit_composition.net == NULL)
        return false;
    kit_runtime.net_polled = true;
    bool busy = kit_net_poll(kit_runtime.net);
    kit_runtime.net_polled = false;
    return busy;
}

int unikernel_main(runtime_environment_t *env)
{
    if (KIT_WITH_PREEMPTION)
        kit_runtime_begin_inside();
    int code = init_unikernel(env);
    if (code != 0 || kit_composition.sched == NULL)
        kit_exit(code);
    if (KIT_WITH_PREEMPTION)
        kit_runtime_allow_upcalls(env);
    for (;;) {
        bool busy = handle_packets();
        if (KIT_WITH_PREEMPTION && has_other_duties())
            kit_runtime_watch();
        busy |= kit_sched_turn(kit_runtime.sched);
        if (process_application_logic != NULL)
            process_application_logic();
        if (!busy && !(has_pending_work != NULL && has_pending_work()))
            enter_low_power_state(env);
    }
}
