/* SPDX-License-Identifier: MIT */
/* The smallest application: it says where it runs and what it is made of, and ends because nothing
 * is left to happen. It prints by hand, without kit_log, to show how small an image can be. */
#include <unikit/app.h>

static void print(const char *text)
{
    kit_print(text, strlen(text));
}

int init_application(void)
{
    const char *argument = kit_boot_option("");
    const char *id;
    print("hello from unikit\n");
    print(kit_platform_name());
    for (size_t i = 0; (id = kit_component_at(i)) != NULL; i++) {
        print(i == 0 ? ": " : ", ");
        print(id);
    }
    print("\n");
    if (argument != NULL && *argument != '\0') {
        print(argument);
        print("\n");
    }
    return 0;
}
