/* SPDX-License-Identifier: MIT */
/* The malloc family, call by call: prints each expectation that does not hold, exits with their
 * number. argv[1] «reuses»: memory that was freed is there again. */
#include <errno.h>
#include <malloc.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int failures;

#define EXPECT(condition)                                                                          \
    ((condition) ? (void)0 : (void)(failures++, printf("line %d: %s\n", __LINE__, #condition)))

/* C23; libc may lack them. */
__attribute__((weak)) void free_sized(void *block, size_t size);
__attribute__((weak)) void free_aligned_sized(void *block, size_t align, size_t size);
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *block, size_t size);
void *__libc_memalign(size_t align, size_t size);
void __libc_free(void *block);

static volatile size_t huge = SIZE_MAX, beyond = (size_t)PTRDIFF_MAX + 1;

static int is_aligned(const void *block, size_t align)
{
    return block && (uintptr_t)block % align == 0;
}

/* Whether all `size` bytes can be written and hold what was written. */
static int works(void *block, size_t size)
{
    if (!block)
        return 0;
    memset(block, 0x5a, size);
    for (size_t index = 0; index < size; index++)
        if (((unsigned char *)block)[index] != 0x5a)
            return 0;
    return 1;
}

static void test_malloc(void)
{
    void *a = malloc(0), *b = malloc(0);
    EXPECT(a && b && a != b);
    free(a);
    free(b);
    for (size_t size = 1; size < 300000; size += size / 3 + 1) {
        void *block = malloc(size);
        EXPECT(is_aligned(block, 16));
        EXPECT(malloc_usable_size(block) >= size);
        EXPECT(works(block, malloc_usable_size(block)));
        errno = 77;
        free(block);
        EXPECT(errno == 77);
    }
    errno = 0;
    EXPECT(!malloc(beyond) && errno == ENOMEM);
    errno = 0;
    EXPECT(!malloc(huge) && errno == ENOMEM);
    errno = 0;
    EXPECT(!malloc((size_t)PTRDIFF_MAX - 100) && errno == ENOMEM);
    errno = 77;
    free(NULL);
    EXPECT(errno == 77);
    EXPECT(malloc_usable_size(NULL) == 0);
}

static void test_calloc(void)
{
    for (size_t size = 1; size < 5000000; size += size * 2 / 3 + 1) {
        void *dirty = malloc(size);
        EXPECT(works(dirty, size));
        free(dirty);
        unsigned char *block = calloc(size, 1);
        size_t sum = 0;
        for (size_t index = 0; block && index < size; index++)
            sum += block[index];
        EXPECT(is_aligned(block, 16) && sum == 0);
        free(block);
    }
    void *none = calloc(0, 8);
    EXPECT(none);
    free(none);
    errno = 0;
    EXPECT(!calloc(huge / 2, 3) && errno == ENOMEM);
    errno = 0;
    EXPECT(!calloc(1, beyond) && errno == ENOMEM);
}

static void test_realloc(void)
{
    unsigned char *block = realloc(NULL, 10);
    EXPECT(works(block, 10));
    for (size_t size = 10; size < 3000000; size += size / 2) {
        size_t grown = size + size / 2;
        block = realloc(block, grown);
        EXPECT(is_aligned(block, 16) && block[0] == 0x5a && block[size - 1] == 0x5a);
        memset(block, 0x5a, grown);
    }
    errno = 0;
    EXPECT(!realloc(block, beyond) && errno == ENOMEM && block[9] == 0x5a);
    errno = 0;
    EXPECT(!reallocarray(block, huge / 2, 3) && errno == ENOMEM && block[9] == 0x5a);
    for (size_t size = 2000000; size > 10; size /= 2) {
        block = realloc(block, size);
        EXPECT(block && block[0] == 0x5a && block[size - 1] == 0x5a);
    }
    errno = 77;
    EXPECT(realloc(block, 0) == NULL && errno == 77);
    block = reallocarray(NULL, 100, 3);
    EXPECT(works(block, 300));
    free(block);
    void *none = realloc(NULL, 0);
    EXPECT(none);
    free(none);
}

static void test_aligned(void)
{
    for (size_t align = 1; align <= 1 << 21; align *= 2) {
        void *block = aligned_alloc(align, 100);
        EXPECT(is_aligned(block, align) && works(block, 100));
        void *other = memalign(align, 40);
        EXPECT(is_aligned(other, align) && works(other, 40));
        void *third = (void *)1;
        if (align >= sizeof(void *))
            EXPECT(posix_memalign(&third, align, 33) == 0 && is_aligned(third, align) &&
                   works(third, 33));
        else
            third = malloc(1);
        other = realloc(other, 5000);
        EXPECT(other && ((unsigned char *)other)[39] == 0x5a);
        free(block);
        free(other);
        free(third);
    }
    void *untouched = &failures;
    errno = 77;
    EXPECT(posix_memalign(&untouched, 3, 8) == EINVAL && untouched == &failures && errno == 77);
    EXPECT(posix_memalign(&untouched, 4, 8) == EINVAL && untouched == &failures && errno == 77);
    EXPECT(posix_memalign(&untouched, 0, 8) == EINVAL && untouched == &failures && errno == 77);
    EXPECT(posix_memalign(&untouched, 64, beyond) == ENOMEM && untouched == &failures &&
           errno == 77);
    EXPECT(posix_memalign(&untouched, 4096, 0) == 0 && is_aligned(untouched, 4096));
    free(untouched);
    errno = 0;
    EXPECT(!aligned_alloc(48, 96) && errno == EINVAL);
    errno = 0;
    EXPECT(!aligned_alloc(0, 96) && errno == EINVAL);
    errno = 0;
    EXPECT(!memalign(huge, 8) && errno == EINVAL);
    errno = 0;
    EXPECT(!memalign(64, beyond) && errno == ENOMEM);
    errno = 0;
    EXPECT(!aligned_alloc((size_t)1 << 62, 8) && errno == ENOMEM);
    errno = 0;
    EXPECT(!aligned_alloc((size_t)1 << 63, 8) && errno == ENOMEM);
    void *rounded = memalign(48, 8);
    EXPECT(is_aligned(rounded, 64));
    free(rounded);
    void *page = valloc(1), *pages = pvalloc(4097);
    EXPECT(is_aligned(page, 4096) && is_aligned(pages, 4096) && malloc_usable_size(pages) >= 8192);
    free(page);
    free(pages);
    errno = 0;
    EXPECT(!pvalloc(huge) && errno == ENOMEM);
}

static void test_names(void)
{
    if (free_sized && free_aligned_sized) {
        for (int round = 0; round < 1000; round++) {
            free_sized(malloc(100), 100);
            free_aligned_sized(aligned_alloc(64, 128), 64, 128);
        }
        free_sized(NULL, 0);
        free_aligned_sized(NULL, 0, 0);
    }
    void *block = __libc_realloc(__libc_malloc(10), 20);
    EXPECT(works(block, 20));
    __libc_free(block);
    free(__libc_calloc(2, 3));
    block = __libc_memalign(64, 3);
    EXPECT(is_aligned(block, 64));
    free(block);
    EXPECT(mallopt(M_MMAP_THRESHOLD, 1 << 20) == 1 && mallopt(12345, 1) == 0);
    void *held = malloc(1 << 20);
    EXPECT(works(held, 1 << 20));
    struct mallinfo2 info = mallinfo2();
    EXPECT(info.uordblks >= 1 << 20 && info.arena >= info.uordblks);
    free(held);
    char text[2048] = "";
    FILE *stream = fmemopen(text, sizeof text, "w");
    EXPECT(malloc_info(0, stream) == 0);
    EXPECT(malloc_info(1, stream) != 0);
    fclose(stream);
    EXPECT(strstr(text, "<malloc version=\"1\""));
}

/* More than is ever free at once, unless what was freed is used again. */
static void test_reuse(void)
{
    for (int round = 0; round < 20000; round++) {
        void *block = malloc(1 << 20);
        EXPECT(block);
        if (!block)
            return;
        *(volatile char *)block = 1;
        free(block);
    }
}

int main(int argc, char **argv)
{
    test_malloc();
    test_calloc();
    test_realloc();
    test_aligned();
    test_names();
    if (argc > 1 && !strcmp(argv[1], "reuses"))
        test_reuse();
    return failures > 100 ? 100 : failures;
}
