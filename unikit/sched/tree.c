/* SPDX-License-Identifier: MIT */
/* The tree of tree.h: an AVL tree with parent pointers, augmented by the least value of each
 * subtree. Source: G. M. Adelson-Velsky, E. M. Landis, «An algorithm for the organization of
 * information», Doklady 146(2), 1962; T. Cormen et al., «Introduction to Algorithms», section 14.2
 * (augmenting). Invariants: the heights of two children differ by one at most; `height` and `least`
 * of every node are those of what is below it. No recursion: loops go along one path, whose length
 * is at most 1.44 log2(n + 2). */
#include <unikit/sched/tree.h>

enum { LEFT, RIGHT };

static uint32_t tree_height(const struct tree_node *node)
{
    return node ? node->height : 0;
}

static void tree_update(struct tree_node *node)
{
    uint32_t left = tree_height(node->child[LEFT]), right = tree_height(node->child[RIGHT]);
    node->height = 1 + (left > right ? left : right);
    node->least = node->value;
    for (int side = LEFT; side <= RIGHT; side++)
        if (node->child[side] && tree_before(node->child[side]->least, node->least))
            node->least = node->child[side]->least;
}

/* Hangs `node` (or nothing) where `old` was. */
static void tree_replace(struct tree *tree, const struct tree_node *old, struct tree_node *node)
{
    struct tree_node *parent = old->parent;
    if (parent)
        parent->child[parent->child[RIGHT] == old] = node;
    else
        tree->root = node;
    if (node)
        node->parent = parent;
}

/* Lets the child on the other side rise above the node, which sinks to `side`. Returns the child.
 */
static struct tree_node *tree_rotate(struct tree *tree, struct tree_node *node, int side)
{
    struct tree_node *riser = node->child[!side], *moved = riser->child[side];
    tree_replace(tree, node, riser);
    node->child[!side] = moved;
    if (moved)
        moved->parent = node;
    riser->child[side] = node;
    node->parent = riser;
    tree_update(node);
    tree_update(riser);
    return riser;
}

/* Brings a path up to date, from a node to the root. */
static void tree_mend(struct tree *tree, struct tree_node *node)
{
    for (; node; node = node->parent) {
        tree_update(node);
        uint32_t left = tree_height(node->child[LEFT]), right = tree_height(node->child[RIGHT]);
        if (left <= right + 1 && right <= left + 1)
            continue;
        int high = right > left;
        struct tree_node *child = node->child[high];
        if (tree_height(child->child[!high]) > tree_height(child->child[high]))
            tree_rotate(tree, child, high);
        node = tree_rotate(tree, node, !high);
    }
}

static struct tree_node *tree_end(struct tree_node *node, int side)
{
    while (node && node->child[side])
        node = node->child[side];
    return node;
}

void tree_insert(struct tree *tree, struct tree_node *node)
{
    struct tree_node *parent = NULL, **place = &tree->root;
    bool first = true;
    while (*place) {
        bool left = tree_before(node->key, (*place)->key);
        first = first && left;
        parent = *place;
        place = &parent->child[left ? LEFT : RIGHT];
    }
    node->parent = parent;
    node->child[LEFT] = node->child[RIGHT] = NULL;
    *place = node;
    if (first)
        tree->first = node;
    tree_mend(tree, node);
}

void tree_remove(struct tree *tree, struct tree_node *node)
{
    struct tree_node *from = node->parent;
    if (tree->first == node)
        tree->first = tree_next(node);
    if (!node->child[LEFT] || !node->child[RIGHT]) {
        tree_replace(tree, node, node->child[node->child[LEFT] ? LEFT : RIGHT]);
    } else { /* the next one takes its place */
        struct tree_node *next = tree_end(node->child[RIGHT], LEFT);
        from = next->parent == node ? next : next->parent;
        tree_replace(tree, next, next->child[RIGHT]);
        tree_replace(tree, node, next);
        for (int side = LEFT; side <= RIGHT; side++) {
            next->child[side] = node->child[side];
            if (next->child[side])
                next->child[side]->parent = next;
        }
    }
    node->height = 0;
    tree_mend(tree, from);
}

struct tree_node *tree_first_upto(const struct tree *tree, uint64_t limit)
{
    struct tree_node *node = tree->root;
    if (!node || tree_before(limit, node->least))
        return NULL;
    for (;;) { /* below node, or at it, there is one */
        struct tree_node *left = node->child[LEFT];
        if (left && !tree_before(limit, left->least))
            node = left;
        else if (!tree_before(limit, node->value))
            return node;
        else
            node = node->child[RIGHT];
    }
}

struct tree_node *tree_next(const struct tree_node *node)
{
    if (node->child[RIGHT])
        return tree_end(node->child[RIGHT], LEFT);
    while (node->parent && node->parent->child[RIGHT] == node)
        node = node->parent;
    return node->parent;
}

static bool tree_sound(const struct tree_node *node)
{
    struct tree_node copy = *node;
    uint32_t left = tree_height(node->child[LEFT]), right = tree_height(node->child[RIGHT]);
    for (int side = LEFT; side <= RIGHT; side++)
        if (node->child[side] && node->child[side]->parent != node)
            return false;
    tree_update(&copy);
    return copy.height == node->height && copy.least == node->least && left <= right + 1 &&
           right <= left + 1;
}

size_t tree_check(const struct tree *tree)
{
    size_t count = 0;
    const struct tree_node *node = tree_end(tree->root, LEFT), *before = NULL;
    if (node != tree->first || (tree->root && tree->root->parent))
        return SIZE_MAX;
    for (; node; before = node, node = tree_next(node), count++)
        if (!tree_sound(node) || (before && tree_before(node->key, before->key)))
            return SIZE_MAX;
    return count;
}
