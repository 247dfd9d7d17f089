/* SPDX-License-Identifier: MIT */
/* Says who waits for what, when no task can ever run again: a line for each task. */
#include <unikit/image/runtime/runtime.h>
#include <unikit/sched/sync.h>

enum { DEADLOCK_LINES = 64 };

static const char *deadlock_name(const struct kit_task *wanted)
{
    struct kit_task_info info;
    for (struct kit_task *task = kit_sched_next_task(kit_runtime.sched, NULL, &info); task != NULL;
         task = kit_sched_next_task(kit_runtime.sched, task, &info))
        if (task == wanted)
            return info.name;
    return "(none)";
}

/* Writes what one choice is, behind `used` bytes of the line; the new length. */
static size_t deadlock_choice(char *line, size_t size, size_t used, const struct kit_choice *choice)
{
    static const char *const nouns[] = {[KIT_WAIT_EVENT] = "event",
                                        [KIT_WAIT_SEMAPHORE] = "semaphore",
                                        [KIT_WAIT_RECEIVE] = "queue (to receive)",
                                        [KIT_WAIT_SEND] = "queue (to send)",
                                        [KIT_WAIT_MUTEX] = "mutex",
                                        [KIT_WAIT_CONDITION] = "condition",
                                        [KIT_WAIT_ONCE] = "once",
                                        [KIT_WAIT_READ] = "rwlock (to read)",
                                        [KIT_WAIT_WRITE] = "rwlock (to write)"};
    const struct kit_task *holder = NULL;
    char *at = line + used;
    size -= used;
    if (choice->kind == KIT_WAIT_TASK)
        return used + kit_format(at, size, " the end of task '%s'", deadlock_name(choice->object));
    if (choice->kind == KIT_WAIT_MUTEX)
        holder = ((const struct kit_mutex *)choice->object)->owner;
    else if (choice->kind == KIT_WAIT_ONCE)
        holder = ((const struct kit_once *)choice->object)->runner;
    else if (choice->kind == KIT_WAIT_READ || choice->kind == KIT_WAIT_WRITE)
        holder = ((const struct kit_rwlock *)choice->object)->writer;
    size_t length = kit_format(at, size, " %s %p", nouns[choice->kind], choice->object);
    if (holder != NULL && length < size)
        length += kit_format(at + length, size - length, " of task '%s'", deadlock_name(holder));
    return used + length;
}

static void deadlock_line(const struct kit_task_info *info)
{
    char line[200];
    const struct kit_wait *wait = info->waits;
    size_t used = kit_format(line, sizeof(line), "task '%s' ", info->name);
    if (info->joins != NULL) {
        kit_log("%swaits for the end of task '%s'", line, deadlock_name(info->joins));
        return;
    }
    if (wait == NULL) {
        kit_log("%sis blocked, and nobody wakes it", line);
        return;
    }
    used += kit_format(line + used, sizeof(line) - used, "waits for");
    for (uint32_t i = 0; i < wait->count && used < sizeof(line); i++) {
        if (i > 0)
            used += kit_format(line + used, sizeof(line) - used, " or");
        if (used < sizeof(line))
            used = deadlock_choice(line, sizeof(line), used, &wait->choices[i]);
    }
    kit_log("%s", line);
}

/* Who holds the mutex that this task waits for, and for nothing else; NULL: it does not. */
static struct kit_task *deadlock_holder(const struct kit_task *wanted)
{
    struct kit_task_info info;
    struct kit_task *task = kit_sched_next_task(kit_runtime.sched, NULL, &info);
    while (task != NULL && task != wanted)
        task = kit_sched_next_task(kit_runtime.sched, task, &info);
    const struct kit_wait *wait = task != NULL ? info.waits : NULL;
    if (wait == NULL || wait->count != 1 || wait->choices[0].kind != KIT_WAIT_MUTEX)
        return NULL;
    return ((const struct kit_mutex *)wait->choices[0].object)->owner;
}

/* If each of some tasks has the mutex that the one before it wants, and the first is `first`. */
static bool deadlock_cycle(const struct kit_task *first)
{
    const struct kit_task *task = deadlock_holder(first);
    for (size_t steps = 0; task != NULL && task != first; task = deadlock_holder(task))
        if (++steps == DEADLOCK_LINES)
            return false;
    if (task == NULL)
        return false;
    char line[200];
    size_t used = kit_format(line, sizeof(line), "cycle of mutexes: '%s'", deadlock_name(first));
    do {
        task = deadlock_holder(task);
        if (used < sizeof(line))
            used += kit_format(line + used, sizeof(line) - used, " -> '%s'", deadlock_name(task));
    } while (task != first);
    kit_log("%s", line);
    return true;
}

void kit_runtime_tell_deadlock(void);

void kit_runtime_tell_deadlock(void)
{
    struct kit_task_info info;
    size_t lines = 0, more = 0;
    bool cycle = false;
    for (struct kit_task *task = kit_sched_next_task(kit_runtime.sched, NULL, &info); task != NULL;
         task = kit_sched_next_task(kit_runtime.sched, task, &info)) {
        if (info.state == KIT_TASK_ENDED)
            continue;
        if (lines++ < DEADLOCK_LINES)
            deadlock_line(&info);
        else
            more++;
    }
    if (more != 0)
        kit_log("and %zu more tasks", more);
    lines = 0;
    for (struct kit_task *task = kit_sched_next_task(kit_runtime.sched, NULL, &info);
         task != NULL && !cycle && lines++ < DEADLOCK_LINES;
         task = kit_sched_next_task(kit_runtime.sched, task, &info))
        cycle = deadlock_cycle(task);
}
