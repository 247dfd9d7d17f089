/* SPDX-License-Identifier: MIT */
/* The smallest application: it says where it runs and what it is made of, and ends. Nothing happens
 * after init_application (events=False in image.py), so the image has no scheduler; the line is put
 * together by hand, without kit_log, to show how small an image can be. */
#include <unikit/app.h>

enum { LINE_SIZE = 512 };

struct line {
    size_t length;
    char text[LINE_SIZE];
};

/* Adds as much as there is room for. */
static void add(struct line *line, const char *text)
{
    while (*text != '\0' && line->length < LINE_SIZE)
        line->text[line->length++] = *text++;
}

int init_application(void)
{
    struct line line;
    const char *argument = kit_boot_option(""), *id;
    line.length = 0;
    add(&line, "hello from unikit\n");
    add(&line, kit_platform_name());
    for (size_t i = 0; (id = kit_component_at(i)) != NULL; i++) {
        add(&line, i == 0 ? ": " : ", ");
        add(&line, id);
    }
    add(&line, "\n");
    kit_print(line.text, line.length);
    if (argument != NULL && *argument != '\0') {
        kit_print(argument, strlen(argument));
        kit_print("\n", 1);
    }
    return 0;
}
