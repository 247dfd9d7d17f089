/* SPDX-License-Identifier: MIT */
/* How processors without work find some, and how they sleep without missing any.
 *
 * One word says who is idle: bit n, processor n rests (it sleeps, or is about to); from bit 48 on,
 * how many are awake and search. Each change is one exchange, so these hold at any moment:
 *
 *     works --------------------------> searches ----------------> rests
 *       ^   idle_rest: nothing to do    |      ^   idle_rest: still  |
 *       |                               |      |   nothing           |  rung: bit cleared and
 *       +-- idle_found: has something --+      +---------------------+  counted as searching by
 *       +-- idle_awake: by itself -------------------------------+-->   the one who rings
 *
 * Nothing is missed. Who makes a task ready puts it into a queue, and then looks at the word; who
 * rests writes the word, and then looks at the queues. With a full fence between the two on either
 * side at least one of them sees the other's write. A processor that makes a task ready rings
 * nobody while somebody searches: whoever stops searching does so in the word first, looks at the
 * queues once more afterwards, and if something is there it goes on or rings the next. A storm of
 * new tasks therefore wakes processors one by one, each by the one before it.
 *
 * Only who rests is rung. Whose bit was cleared was counted as searching by the same exchange.
 *
 * Before it rests, a processor looks around `spin` times, but only while another one works, so
 * there are never more spinners than processors less one; processor 0 does not, it has devices.
 * Cost: a notification one fence and two loads; a search O(processors). */
#include <unikit/rt/bits.h>
#include <unikit/sched/steal/steal.h>

enum { IDLE_PAUSES = 8 };
#define IDLE_SEARCHING (UINT64_C(1) << STEAL_CPUS_MAX)
#define IDLE_RESTING (IDLE_SEARCHING - 1)

/* Wakes one of the processors in `mask` if it rests and, for `any` of them, nobody searches. */
static void idle_wake_one(struct steal *steal, uint64_t mask, bool any)
{
    uint64_t idle = STEAL_LOAD(&steal->idle, SEQ_CST);
    unsigned number;
    do {
        if ((idle & mask) == 0 || (any && idle >= IDLE_SEARCHING))
            return;
        number = kit_ctz64(idle & mask);
    } while (!STEAL_CAS(&steal->idle, &idle, (idle & ~(UINT64_C(1) << number)) + IDLE_SEARCHING,
                        SEQ_CST));
    kit_env_cpu_wake(steal->env, number);
}

void idle_notify(struct steal_cpu *cpu)
{
    STEAL_FENCE();
    idle_wake_one(cpu->steal, IDLE_RESTING, true);
}

void idle_ring(struct steal_cpu *other)
{
    STEAL_FENCE();
    idle_wake_one(other->steal, UINT64_C(1) << other->number, false);
}

/* Whether a processor has a task that can be stolen. */
static bool idle_loot(const struct steal *steal)
{
    for (uint32_t i = 0; i < steal->cpus; i++)
        if (deque_count(&steal->cpu[i].deque) != 0 || overflow_count(&steal->cpu[i].overflow) != 0)
            return true;
    return false;
}

/* Whether there is something to do for one who was going to rest until `deadline_ns`. */
static bool idle_something(const struct steal_cpu *cpu, uint64_t deadline_ns)
{
    return !inbox_empty(&cpu->inbox) || idle_loot(cpu->steal) ||
           STEAL_LOAD(&cpu->steal->sleepers.first_ns, SEQ_CST) < deadline_ns;
}

struct kit_task *idle_steal(struct steal_cpu *cpu)
{
    struct steal *steal = cpu->steal;
    cpu->random ^= cpu->random << 13; /* G. Marsaglia, «Xorshift RNGs», 2003 */
    cpu->random ^= cpu->random >> 7;
    cpu->random ^= cpu->random << 17;
    uint32_t first = (uint32_t)((cpu->random >> 32) * steal->cpus >> 32);
    for (uint32_t i = 0; i < steal->cpus; i++) {
        struct steal_cpu *victim = &steal->cpu[(first + i) % steal->cpus];
        struct kit_task *task = NULL;
        struct kit_list *link;
        int got;
        do
            got = deque_steal(&victim->deque, &task);
        while (got < 0);
        if (got > 0)
            return task;
        if ((link = overflow_take(&victim->overflow)) != NULL)
            return KIT_CONTAINER_OF(link, struct kit_task, link);
    }
    return NULL;
}

/* Who kept an eye on the sleepers does so no longer: somebody else has to. */
static void idle_watch_again(struct steal_cpu *cpu)
{
    uint64_t first_ns = STEAL_LOAD(&cpu->steal->sleepers.first_ns, SEQ_CST);
    if (first_ns != KIT_NEVER)
        idle_watch(cpu, first_ns);
}

void idle_found(struct steal_cpu *cpu)
{
    struct steal *steal = cpu->steal;
    if (!cpu->searching)
        return;
    cpu->searching = false;
    uint64_t idle = STEAL_LOAD(&steal->idle, RELAXED);
    while (!STEAL_CAS(&steal->idle, &idle, idle - IDLE_SEARCHING, SEQ_CST)) {
    }
    /* Others may have relied on this search, for more than was found. */
    if (idle >= 2 * IDLE_SEARCHING || (idle & IDLE_RESTING) == 0)
        return;
    if (idle_loot(steal))
        idle_wake_one(steal, IDLE_RESTING, true);
    else
        idle_watch_again(cpu);
}

/* Takes back that the processor rests. Afterwards it searches if it was rung, or if it shall. */
static void idle_rise(struct steal_cpu *cpu, bool search)
{
    struct steal *steal = cpu->steal;
    uint64_t bit = UINT64_C(1) << cpu->number;
    uint64_t idle = STEAL_LOAD(&steal->idle, RELAXED);
    cpu->resting = false;
    do {
        if ((idle & bit) == 0) {
            cpu->searching = true;
            return;
        }
    } while (
        !STEAL_CAS(&steal->idle, &idle, (idle & ~bit) + (search ? IDLE_SEARCHING : 0), SEQ_CST));
    cpu->searching = search;
}

void idle_awake(struct steal_cpu *cpu)
{
    if (!cpu->resting)
        return;
    idle_rise(cpu, false);
    idle_watch_again(cpu);
}

static void idle_search(struct steal_cpu *cpu)
{
    uint64_t idle = STEAL_LOAD(&cpu->steal->idle, RELAXED);
    while (!STEAL_CAS(&cpu->steal->idle, &idle, idle + IDLE_SEARCHING, SEQ_CST)) {
    }
    cpu->searching = true;
}

/* Looks around for a while; whether there was something. */
static bool idle_spin(struct steal_cpu *cpu, uint64_t deadline_ns)
{
    struct steal *steal = cpu->steal;
    for (uint32_t look = 0; look < steal->spin; look++) {
        uint64_t idle = STEAL_LOAD(&steal->idle, RELAXED);
        unsigned without_work =
            kit_popcount64(idle & IDLE_RESTING) + (unsigned)(idle >> STEAL_CPUS_MAX);
        if (without_work >= steal->cpus)
            return false; /* nobody works who could make any */
        if (idle_something(cpu, deadline_ns))
            return true;
        for (int i = 0; i < IDLE_PAUSES; i++)
            STEAL_PAUSE();
    }
    return false;
}

bool idle_rest(struct steal_cpu *cpu, uint64_t deadline_ns)
{
    struct steal *steal = cpu->steal;
    STEAL_STORE(&cpu->rest_ns, deadline_ns, RELAXED);
    if (cpu->resting) /* asked again, without a turn in between */
        return true;
    if (idle_something(cpu, deadline_ns))
        return false;
    if (!cpu->searching)
        idle_search(cpu);
    if (cpu->number != 0 && idle_spin(cpu, deadline_ns))
        return false;
    uint64_t bit = UINT64_C(1) << cpu->number;
    uint64_t idle = STEAL_LOAD(&steal->idle, RELAXED);
    while (!STEAL_CAS(&steal->idle, &idle, (idle | bit) - IDLE_SEARCHING, SEQ_CST)) {
    }
    cpu->searching = false;
    cpu->resting = true;
    if (!idle_something(cpu, deadline_ns)) /* the last look */
        return true;
    idle_rise(cpu, true);
    return false;
}

void idle_watch(struct steal_cpu *cpu, uint64_t deadline_ns)
{
    struct steal *steal = cpu->steal;
    STEAL_FENCE();
    uint64_t resting = STEAL_LOAD(&steal->idle, SEQ_CST) & IDLE_RESTING;
    for (uint64_t rest = resting; rest != 0; rest &= rest - 1)
        if (STEAL_LOAD(&steal->cpu[kit_ctz64(rest)].rest_ns, RELAXED) <= deadline_ns)
            return;
    if (resting != 0)
        idle_wake_one(steal, resting, true);
}
