/* SPDX-License-Identifier: MIT */
/* Options given at boot: text, as people write it, into the number that the component gets. The
 * language is that of unikit/component.py (a test feeds both the same texts); a text that is not
 * allowed is refused with the same words and ends the image before anything is built. */
#include <unikit/image/runtime/runtime.h>
#include <unikit/rt/bits.h>

/* What is left of a text. */
struct text {
    const char *at;
};

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c;
}

/* Takes `word` (lower case) if the text goes on with it in any case. */
static bool take(struct text *text, const char *word)
{
    const char *at = text->at;
    for (; *word != '\0'; word++, at++)
        if (lower(*at) != *word)
            return false;
    text->at = at;
    return true;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool take_digits(struct text *text, uint64_t *out)
{
    uint64_t value = 0;
    if (!is_digit(*text->at))
        return false;
    for (; is_digit(*text->at); text->at++)
        if (kit_mul_overflow(value, 10u, &value) ||
            kit_add_overflow(value, (uint64_t)(*text->at - '0'), &value))
            return false;
    *out = value;
    return true;
}

static bool take_hexadecimal(struct text *text, uint64_t *out)
{
    uint64_t value = 0;
    const char *start = text->at;
    for (;; text->at++) {
        char c = lower(*text->at);
        uint64_t digit = is_digit(c)            ? (uint64_t)(c - '0')
                         : c >= 'a' && c <= 'f' ? (uint64_t)(c - 'a') + 10
                                                : 16;
        if (digit == 16)
            break;
        if (value >> 60 != 0)
            return false;
        value = value << 4 | digit;
    }
    *out = value;
    return text->at != start;
}

static bool read_int(struct text *text, uint64_t *out)
{
    if (take(text, "0x"))
        return take_hexadecimal(text, out);
    bool octal = text->at[0] == '0'; /* in some eyes: 010 is refused, 00 is not */
    return take_digits(text, out) && !(octal && *out != 0);
}

static bool read_size(struct text *text, uint64_t *out)
{
    if (!take_digits(text, out))
        return false;
    static const char powers[] = "kmgt";
    unsigned shift = 0;
    for (unsigned i = 0; powers[i] != '\0'; i++)
        if (lower(*text->at) == powers[i]) {
            shift = 10 * (i + 1);
            text->at++;
            break;
        }
    (void)(take(text, "ib") || take(text, "b"));
    if (*out > UINT64_MAX >> shift)
        return false;
    *out <<= shift;
    return true;
}

/* Whole units and up to nine decimals; a bare number counts nanoseconds. */
static bool read_duration(struct text *text, uint64_t *out)
{
    uint64_t whole, decimals = 0, decimal_unit = 1;
    if (!take_digits(text, &whole))
        return false;
    if (take(text, ".")) {
        if (!is_digit(*text->at))
            return false;
        for (; is_digit(*text->at); text->at++) {
            if (decimal_unit < KIT_NS_PER_S) {
                decimals = decimals * 10 + (uint64_t)(*text->at - '0');
                decimal_unit *= 10;
            }
        }
    }
    uint64_t unit = take(text, "ns")   ? 1
                    : take(text, "us") ? KIT_NS_PER_US
                    : take(text, "ms") ? KIT_NS_PER_MS
                    : take(text, "s")  ? KIT_NS_PER_S
                                       : 0;
    if (unit == 0) {
        if (decimal_unit != 1)
            return false;
        unit = 1;
    }
    /* decimals < 10^9 and unit <= 10^9: the product fits. */
    return !kit_mul_overflow(whole, unit, &whole) &&
           !kit_add_overflow(whole, decimals * unit / decimal_unit, out);
}

static bool read_bool(struct text *text, uint64_t *out)
{
    *out = take(text, "true") || take(text, "yes") || take(text, "on") || take(text, "1");
    return *out || take(text, "false") || take(text, "no") || take(text, "off") || take(text, "0");
}

static bool read_choice(const char *const *choices, struct text *text, uint64_t *out)
{
    size_t length = strlen(text->at);
    for (uint64_t i = 0; choices[i] != NULL; i++)
        if (strlen(choices[i]) == length && memcmp(choices[i], text->at, length) == 0) {
            *out = i;
            text->at += length;
            return true;
        }
    return false;
}

static bool read_address(struct text *text, uint64_t *out)
{
    uint64_t address = 0;
    for (unsigned i = 0; i < 4; i++) {
        const char *start;
        uint64_t byte;
        if (i != 0 && !take(text, "."))
            return false;
        start = text->at;
        if (!take_digits(text, &byte) || byte > 255 || text->at - start > 3 ||
            (*start == '0' && text->at - start > 1))
            return false;
        address = address << 8 | byte;
    }
    *out = address;
    return true;
}

static bool read_prefix(struct text *text, uint64_t *out)
{
    uint64_t length;
    if (*text->at == '\0') {
        *out = 0;
        return true;
    }
    if (!read_address(text, out) || !take(text, "/") || !take_digits(text, &length) || length > 32)
        return false;
    *out |= length << 32;
    return true;
}

static bool read_value(const struct kit_boot_option *option, const char *given, uint64_t *out)
{
    struct text text = {given};
    bool ok = false;
    switch (option->kind) {
    case KIT_OPTION_INT:
        ok = read_int(&text, out);
        break;
    case KIT_OPTION_SIZE:
        ok = read_size(&text, out);
        break;
    case KIT_OPTION_DURATION:
        ok = read_duration(&text, out);
        break;
    case KIT_OPTION_BOOL:
        return read_bool(&text, out) && *text.at == '\0';
    case KIT_OPTION_CHOICE:
        return read_choice(option->choices, &text, out);
    case KIT_OPTION_ADDRESS:
        return read_address(&text, out) && *text.at == '\0';
    case KIT_OPTION_PREFIX:
        return read_prefix(&text, out) && *text.at == '\0';
    }
    return ok && *text.at == '\0' && option->minimum <= *out && *out <= option->maximum;
}

int kit_runtime_read_options(runtime_environment_t *env)
{
    int result = 0;
    for (uint32_t i = 0; i < kit_composition.boot_option_count; i++) {
        const struct kit_boot_option *option = &kit_composition.boot_options[i];
        const char *given = kit_env_boot_option(env, option->name);
        uint64_t value = 0;
        if (given == NULL)
            continue;
        if (read_value(option, given, &value)) {
            *option->value = value;
        } else {
            kit_log("%s: '%.64s' is not allowed; give %s", option->name, given, option->allowed);
            result = KIT_EXIT_REFUSED;
        }
    }
    return result;
}
