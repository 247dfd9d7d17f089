/* SPDX-License-Identifier: MIT */
/* sched/tree.c against a list that is searched from end to end. Arguments: seed, steps. */
#include <stdio.h>
#include <stdlib.h>

#include <unikit/sched/tree.h>

enum { NODES = 64 };

static struct tree tree;
static struct tree_node nodes[NODES];
static uint64_t order_of[NODES], order, state;
static bool in[NODES];

static uint64_t draw(uint64_t below)
{
    state = state * UINT64_C(6364136223846793005) + 1442695040888963407;
    return (state >> 33) % below;
}

static void must(bool condition, const char *what)
{
    if (!condition) {
        printf("FAILED: %s\n", what);
        exit(1);
    }
}

/* The first by (key, order) whose value is at most `limit`. */
static struct tree_node *expected(uint64_t limit)
{
    struct tree_node *best = NULL;
    for (size_t i = 0; i < NODES; i++) {
        struct tree_node *node = &nodes[i];
        if (!in[i] || tree_before(limit, node->value))
            continue;
        if (!best || tree_before(node->key, best->key) ||
            (node->key == best->key && order_of[i] < order_of[best - nodes]))
            best = node;
    }
    return best;
}

int main(int argc, char **argv)
{
    state = argc > 1 ? strtoull(argv[1], NULL, 0) : 1;
    uint64_t steps = argc > 2 ? strtoull(argv[2], NULL, 0) : 1000;
    uint64_t base = draw(2) ? 0 - (uint64_t)50 : 1000; /* around the wrap */
    for (uint64_t step = 0; step < steps; step++) {
        size_t i = draw(NODES), count = 0;
        if (in[i]) {
            tree_remove(&tree, &nodes[i]);
            must(nodes[i].height == 0, "a node outside says that it is in");
        } else {
            nodes[i].key = base + draw(100);
            nodes[i].value = base + draw(100);
            order_of[i] = order++;
            tree_insert(&tree, &nodes[i]);
        }
        in[i] = !in[i];
        for (size_t n = 0; n < NODES; n++)
            count += in[n];
        must(tree_check(&tree) == count, "order, balance or sums");
        must(tree.first == expected(base + 100), "the first");
        uint64_t limit = base + draw(100);
        must(tree_first_upto(&tree, limit) == expected(limit), "the first up to a limit");
        must(tree_check(&tree) > (1U << 6) || !tree.root || tree.root->height <= 9, "height");
    }
    printf("%llu steps\n", (unsigned long long)steps);
    return 0;
}
