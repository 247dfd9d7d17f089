/* SPDX-License-Identifier: MIT */
/* Intrusive circular doubly linked list; every operation O(1). A node is in at most one list; a
 * node that is in none points to itself. */
#ifndef KIT_RT_LIST_H
#define KIT_RT_LIST_H

#include <unikit/rt/types.h>

/* cdef: begin */
struct kit_list {
    struct kit_list *next;
    struct kit_list *prev;
};
/* cdef: end */

KIT_INLINE void kit_list_init(struct kit_list *list)
{
    list->next = list->prev = list;
}

KIT_INLINE bool kit_list_empty(const struct kit_list *list)
{
    return list->next == list;
}

KIT_INLINE void kit_list_insert_after(struct kit_list *at, struct kit_list *node)
{
    node->next = at->next;
    node->prev = at;
    at->next->prev = node;
    at->next = node;
}

KIT_INLINE void kit_list_push_back(struct kit_list *list, struct kit_list *node)
{
    kit_list_insert_after(list->prev, node);
}

KIT_INLINE void kit_list_push_front(struct kit_list *list, struct kit_list *node)
{
    kit_list_insert_after(list, node);
}

/* Removing a node that is in no list does nothing. */
KIT_INLINE void kit_list_remove(struct kit_list *node)
{
    node->prev->next = node->next;
    node->next->prev = node->prev;
    kit_list_init(node);
}

/* The first node, taken out; NULL if the list is empty. */
KIT_INLINE struct kit_list *kit_list_pop_front(struct kit_list *list)
{
    struct kit_list *node = list->next;
    if (node == list)
        return NULL;
    kit_list_remove(node);
    return node;
}

/* Moves every node of `from`, in order, behind those of `to`. */
KIT_INLINE void kit_list_take(struct kit_list *to, struct kit_list *from)
{
    if (kit_list_empty(from))
        return;
    from->next->prev = to->prev;
    to->prev->next = from->next;
    from->prev->next = to;
    to->prev = from->prev;
    kit_list_init(from);
}

#endif
