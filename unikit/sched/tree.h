/* SPDX-License-Identifier: MIT */
/* An ordered tree of nodes that their owners embed, for policies: sorted by `key`, first in first
 * out among equals, and each node knows the least `value` below it. Keys and values are compared
 * by their difference, so they may wrap around as long as all of one tree lie within 2^63 of each
 * other. Inner interface of unikit/sched; a component lists tree.c among its sources. */
#ifndef KIT_SCHED_TREE_H
#define KIT_SCHED_TREE_H

#include <unikit/rt/types.h>

struct tree_node {
    struct tree_node *parent;
    struct tree_node *child[2]; /* smaller keys; keys as large or larger */
    uint64_t key;
    uint64_t value;
    uint64_t least;  /* of the values of this node and all below it */
    uint32_t height; /* 1 for a leaf; 0: in no tree */
};

struct tree {
    struct tree_node *root;
    struct tree_node *first; /* the smallest key */
};

/* Whether a comes before b. */
KIT_INLINE bool tree_before(uint64_t a, uint64_t b)
{
    return (int64_t)(a - b) < 0;
}

/* Puts a node in, by its key and value, behind those of equal key. O(log n). */
void tree_insert(struct tree *tree, struct tree_node *node);
/* Takes a node out. O(log n). */
void tree_remove(struct tree *tree, struct tree_node *node);
/* The first node whose value is not after `limit`; NULL: none. O(log n). */
struct tree_node *tree_first_upto(const struct tree *tree, uint64_t limit);
/* The node behind this one; NULL: it is the last. O(log n), O(1) on average. */
struct tree_node *tree_next(const struct tree_node *node);
/* Verifies order, balance and sums; the number of nodes, or SIZE_MAX if something is wrong. */
size_t tree_check(const struct tree *tree);

#endif
