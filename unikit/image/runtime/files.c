/* SPDX-License-Identifier: MIT */
/* Packed files: a table sorted by path, bytewise, searched by halves. */
#include <unikit/image/runtime/composition.h>

/* < 0, 0, > 0 as `path` stands before, at or behind `file`. */
static int compare(const char *path, size_t length, const struct kit_file *file)
{
    size_t other = strlen(file->path);
    int order = memcmp(path, file->path, length < other ? length : other);
    return order != 0 ? order : (length > other) - (length < other);
}

const struct kit_file *kit_file_find(const char *path, size_t length)
{
    size_t low = 0, high = kit_composition.file_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct kit_file *file = &kit_composition.files[middle];
        int order = compare(path, length, file);
        if (order == 0)
            return file;
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

const struct kit_file *kit_file_at(size_t index)
{
    return index < kit_composition.file_count ? &kit_composition.files[index] : NULL;
}
