/* SPDX-License-Identifier: MIT */
/* One broken contract per number: what the allocators notice without extra cost. */
#include <stdio.h>
#include <stdlib.h>

#include <unikit/alloc/alloc.h>

extern const struct kit_alloc_component COMPONENT;

int main(int argc, char **argv)
{
    static _Alignas(16) char memory[65536];
    uint64_t options[4] = {argc > 2 ? strtoull(argv[2], NULL, 0) : 0};
    struct kit_alloc *a;
    if (argc < 2 || COMPONENT.open(options, memory, sizeof memory, &a) != 0)
        return 2;
    char *first = kit_alloc_alloc(a, 100, 0);
    char *second = kit_alloc_alloc(a, 200, 0);
    switch (atoi(argv[1])) {
    case 1: /* a block freed twice */
        kit_alloc_free(a, second, 200, 0);
        kit_alloc_free(a, second, 200, 0);
        break;
    case 2: /* the same, after it was joined with its neighbours */
        kit_alloc_free(a, first, 100, 0);
        kit_alloc_free(a, second, 200, 0);
        kit_alloc_free(a, second, 200, 0);
        break;
    case 3: /* a pointer from elsewhere */
        kit_alloc_free(a, options, 16, 0);
        break;
    case 4: /* a pointer into a block */
        kit_alloc_free(a, first + 16, 16, 0);
        break;
    case 5: /* a size that was not asked for */
        kit_alloc_free(a, first, 1000, 0);
        break;
    case 6: /* a freed block resized */
        kit_alloc_free(a, second, 200, 0);
        kit_alloc_realloc(a, second, 200, 300, 0);
        break;
    default:
        return 2;
    }
    puts("not noticed");
    return 0;
}
