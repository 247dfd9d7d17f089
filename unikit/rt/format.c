/* SPDX-License-Identifier: MIT */
/* Formatting without floating point, allocation or recursion. Time is linear in the output; the
 * only state is on the stack (a number is at most 20 digits). */
#include <unikit/rt/format.h>

/* Text is for people: the compiler shall save bytes here, not cycles. */
#define COLD __attribute__((cold, noinline))

enum { DIGITS_MAX = 20, LEFT = 1, ZERO = 2, WIDTH_MAX = 4096 };

struct sink {
    char *buffer;
    size_t size;
    size_t length; /* of the whole text */
};

struct spec {
    unsigned flags;
    unsigned width;
    size_t precision; /* SIZE_MAX: none */
    unsigned longs;   /* number of l; z and j count as one */
};

static COLD void put(struct sink *sink, char c)
{
    if (sink->length < sink->size)
        sink->buffer[sink->length] = c;
    sink->length++;
}

static void pad(struct sink *sink, char c, size_t have, size_t want)
{
    for (; have < want; have++)
        put(sink, c);
}

/* `sign` is 0 or a character in front, which stands before zeros and after blanks. */
static COLD void put_field(struct sink *sink, const struct spec *spec, const char *prefix,
                           const char *text, size_t length)
{
    size_t prefix_length = strlen(prefix);
    size_t whole = prefix_length + length;
    bool zeros = (spec->flags & (ZERO | LEFT)) == ZERO;
    if (!zeros && !(spec->flags & LEFT))
        pad(sink, ' ', whole, spec->width);
    for (size_t i = 0; i < prefix_length; i++)
        put(sink, prefix[i]);
    if (zeros)
        pad(sink, '0', whole, spec->width);
    for (size_t i = 0; i < length; i++)
        put(sink, text[i]);
    if (spec->flags & LEFT)
        pad(sink, ' ', whole, spec->width);
}

static COLD void put_number(struct sink *sink, const struct spec *spec, const char *prefix,
                            uint64_t value, unsigned base, const char *digits)
{
    char text[DIGITS_MAX];
    size_t at = DIGITS_MAX;
    do {
        text[--at] = digits[value % base];
        value /= base;
    } while (value != 0);
    put_field(sink, spec, prefix, text + at, DIGITS_MAX - at);
}

static COLD void put_text(struct sink *sink, struct spec *spec, const char *text)
{
    if (text == NULL)
        text = "(null)";
    size_t length = 0;
    while (length < spec->precision && text[length] != '\0')
        length++;
    spec->flags &= ~(unsigned)ZERO;
    put_field(sink, spec, "", text, length);
}

static unsigned read_number(const char **format)
{
    unsigned value = 0;
    for (; **format >= '0' && **format <= '9'; (*format)++)
        if (value < WIDTH_MAX)
            value = value * 10 + (unsigned)(**format - '0');
    return value < WIDTH_MAX ? value : WIDTH_MAX;
}

/* Reads what stands between % and the conversion; *format is left at the conversion. */
static COLD struct spec read_spec(const char **format)
{
    struct spec spec = {.precision = SIZE_MAX};
    for (;; (*format)++) {
        if (**format == '-')
            spec.flags |= LEFT;
        else if (**format == '0')
            spec.flags |= ZERO;
        else
            break;
    }
    spec.width = read_number(format);
    if (**format == '.') {
        (*format)++;
        spec.precision = read_number(format);
    }
    while (**format == 'l' || **format == 'z' || **format == 'j') {
        spec.longs++;
        (*format)++;
    }
    return spec;
}

COLD size_t kit_vformat(char *buffer, size_t size, const char *format, va_list arguments)
{
    static const char lower[] = "0123456789abcdef", upper[] = "0123456789ABCDEF";
    struct sink sink = {.buffer = buffer, .size = size};
    for (; *format != '\0'; format++) {
        if (*format != '%') {
            put(&sink, *format);
            continue;
        }
        format++;
        struct spec spec = read_spec(&format);
        char one;
        uint64_t value;
        switch (*format) {
        case 's':
            if (spec.longs != 0)
                kit_panic("kit_format: wide text");
            put_text(&sink, &spec, va_arg(arguments, const char *));
            break;
        case 'c':
            one = (char)va_arg(arguments, int);
            spec.flags &= ~(unsigned)ZERO;
            put_field(&sink, &spec, "", &one, 1);
            break;
        case 'd':
        case 'i':
            value = spec.longs ? va_arg(arguments, uint64_t)
                               : (uint64_t)(int64_t)va_arg(arguments, int);
            if ((int64_t)value < 0)
                put_number(&sink, &spec, "-", 0 - value, 10, lower);
            else
                put_number(&sink, &spec, "", value, 10, lower);
            break;
        case 'u':
        case 'x':
        case 'X':
            value = spec.longs ? va_arg(arguments, uint64_t) : va_arg(arguments, unsigned);
            put_number(&sink, &spec, "", value, *format == 'u' ? 10 : 16,
                       *format == 'X' ? upper : lower);
            break;
        case 'p':
            value = (uintptr_t)va_arg(arguments, void *);
            put_number(&sink, &spec, "0x", value, 16, lower);
            break;
        case '%':
            put(&sink, '%');
            break;
        default:
            /* A wrong format is a bug of the caller, which the compiler's format check reports. */
            kit_panic("kit_format: unknown conversion");
        }
    }
    if (size != 0)
        buffer[sink.length < size ? sink.length : size - 1] = '\0';
    return sink.length;
}

size_t kit_format(char *buffer, size_t size, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    size_t length = kit_vformat(buffer, size, format, arguments);
    va_end(arguments);
    return length;
}
