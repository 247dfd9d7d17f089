/* SPDX-License-Identifier: MIT */
/* Parses request heads. Strict where leniency lets two readers disagree about where a message ends
 * (RFC 9112, section 11.2): lines end in CR LF, names touch their colon, no folding, no bare
 * control characters, one length. Every loop is bounded by the head's length. */
#include "request.h"

struct line {
    const char *at;
    const char *end; /* at the CR */
};

size_t http_head_end(const char *data, size_t length, size_t *scanned)
{
    for (size_t i = *scanned < 3 ? 3 : *scanned; i < length; i++)
        if (data[i] == '\n' && data[i - 1] == '\r' && data[i - 2] == '\n' && data[i - 3] == '\r') {
            *scanned = i + 1;
            return i + 1;
        }
    *scanned = length;
    return 0;
}

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c;
}

/* `word` in lower case. */
static __attribute__((noinline)) bool same(const char *at, size_t length, const char *word)
{
    for (size_t i = 0; i < length; i++)
        if (word[i] == '\0' || lower(at[i]) != word[i])
            return false;
    return word[length] == '\0';
}

/* tchar of RFC 9110, section 5.6.2, as 128 bits. */
static bool is_token(unsigned char c)
{
    static const uint64_t set[2] = {UINT64_C(0x03ff6cfa00000000), UINT64_C(0x57ffffffc7fffffe)};
    return c < 128 && (set[c / 64] >> c % 64 & 1);
}

static bool next_line(const char **data, const char *end, struct line *out)
{
    const char *at = *data;
    while (at < end && *at != '\n')
        at++;
    if (at == end || at == *data || at[-1] != '\r')
        return false;
    *out = (struct line){*data, at - 1};
    *data = at + 1;
    return true;
}

static int hex(char c)
{
    c = lower(c);
    if (c >= '0' && c <= '9')
        return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Takes the last segment off the path; false: there is none, so the target climbs out. */
static bool climb(struct http_request *out)
{
    if (out->path_length == 0)
        return false;
    do
        out->path_length--;
    while (out->path_length > 0 && out->path[out->path_length] != '/');
    return true;
}

/* Ends the segment that began at `start` of the path, which holds it behind a slash unless it is
 * the first one. Dot and empty segments vanish. */
static bool end_segment(struct http_request *out, size_t start)
{
    const char *segment = out->path + start;
    size_t length = out->path_length - start;
    if (length == 0 || (length == 1 && segment[0] == '.')) {
        out->path_length = start > 0 ? start - 1 : 0;
        return true;
    }
    if (length == 2 && segment[0] == '.' && segment[1] == '.') {
        out->path_length = start > 0 ? start - 1 : 0;
        return climb(out);
    }
    return true;
}

/* Decodes one character at *at; -1: malformed. An encoded slash is refused: it would name another
 * file to whoever splits before decoding. */
static int decode(const char **at, const char *end)
{
    char c = *(*at)++;
    if (c != '%')
        return (unsigned char)c <= ' ' || c == 0x7f ? -1 : (unsigned char)c;
    if (end - *at < 2 || hex((*at)[0]) < 0 || hex((*at)[1]) < 0)
        return -1;
    int byte = hex((*at)[0]) << 4 | hex((*at)[1]);
    *at += 2;
    return byte < ' ' || byte == 0x7f || byte == '/' ? -1 : byte;
}

/* The path of a target in origin form, from its first slash on. */
static int parse_path(const char *at, const char *end, struct http_request *out)
{
    while (at < end && *at == '/') {
        at++;
        if (out->path_length != 0)
            out->path[out->path_length++] = '/';
        size_t start = out->path_length;
        const char *segment = at;
        while (at < end && *at != '/' && *at != '?') {
            int byte = decode(&at, end);
            if (byte < 0)
                return 400;
            if (out->path_length >= HTTP_PATH_MAX - 1)
                return 414;
            out->path[out->path_length++] = (char)byte;
        }
        /* «/a/.» and «/a/..» name folders as much as «/a/» does. */
        size_t length = (size_t)(at - segment);
        out->folder = length == 0 || same(segment, length, ".") || same(segment, length, "..");
        if (!end_segment(out, start))
            return 400;
    }
    for (; at < end; at++)
        if ((unsigned char)*at <= ' ' || *at == 0x7f)
            return 400;
    return 0;
}

static int parse_target(const char *at, const char *end, struct http_request *out)
{
    if (end - at > HTTP_TARGET_MAX)
        return 414;
    /* Absolute form (RFC 9112, section 3.2.2): the authority is not ours to judge. */
    if (end - at > 7 && same(at, 7, "http://")) {
        at += 7;
        while (at < end && *at != '/' && *at != '?')
            at++;
        if (at == end || *at == '?') {
            out->folder = true;
            return 0;
        }
    }
    if (at == end || *at != '/')
        return 400;
    return parse_path(at, end, out);
}

static int parse_version(const char *at, const char *end, struct http_request *out)
{
    if (end - at != 8 || memcmp(at, "HTTP/", 5) != 0 || at[6] != '.' || at[5] < '0' ||
        at[5] > '9' || at[7] < '0' || at[7] > '9')
        return 400;
    if (at[5] != '1')
        return 505;
    out->http_1_0 = at[7] == '0';
    return 0;
}

/* method SP target SP version. The version is looked at first: it decides how to answer. */
static int parse_request_line(struct line line, struct http_request *out)
{
    const char *method_end = line.at;
    while (method_end < line.end && is_token((unsigned char)*method_end))
        method_end++;
    size_t method_length = (size_t)(method_end - line.at);
    if (method_length == 0 || method_end == line.end || *method_end != ' ')
        return 400;
    out->method = method_length == 3 && memcmp(line.at, "GET", 3) == 0    ? HTTP_GET
                  : method_length == 4 && memcmp(line.at, "HEAD", 4) == 0 ? HTTP_HEAD
                                                                          : HTTP_OTHER;
    const char *target = method_end + 1, *target_end = target;
    while (target_end < line.end && *target_end != ' ')
        target_end++;
    if (target_end == line.end)
        return 400;
    int status = parse_version(target_end + 1, line.end, out);
    if (status != 0)
        return status;
    /* «OPTIONS *» and «CONNECT host:port» have no path; they are refused by their method. */
    return out->method == HTTP_OTHER ? 0 : parse_target(target, target_end, out);
}

/* What the fields said that decides about the message as a whole. */
struct framing {
    unsigned hosts;
    bool length_known;
    bool transfer_encoding;
    bool close;
    bool keep_alive;
};

static int parse_length(struct http_text value, struct framing *framing, struct http_request *out)
{
    uint64_t length = 0;
    if (value.length == 0)
        return 400;
    for (size_t i = 0; i < value.length; i++) {
        if (value.at[i] < '0' || value.at[i] > '9' || length > UINT64_MAX / 10 - 1)
            return 400;
        length = length * 10 + (uint64_t)(value.at[i] - '0');
    }
    if (framing->length_known && length != out->content_length)
        return 400;
    framing->length_known = true;
    out->content_length = length;
    return 0;
}

static void parse_connection(struct http_text value, struct framing *framing)
{
    const char *at = value.at, *end = value.at + value.length;
    while (at < end) {
        const char *start = at;
        while (at < end && *at != ',' && *at != ' ' && *at != '\t')
            at++;
        framing->close |= same(start, (size_t)(at - start), "close");
        framing->keep_alive |= same(start, (size_t)(at - start), "keep-alive");
        while (at < end && (*at == ',' || *at == ' ' || *at == '\t'))
            at++;
    }
}

static int use_field(const char *name, size_t length, struct http_text value,
                     struct framing *framing, struct http_request *out)
{
    switch (length) {
    case 4:
        framing->hosts += same(name, length, "host");
        break;
    case 5:
        if (same(name, length, "range"))
            out->range = value;
        break;
    case 8:
        if (same(name, length, "if-range"))
            out->if_range = value;
        break;
    case 10:
        if (same(name, length, "connection"))
            parse_connection(value, framing);
        break;
    case 13:
        if (same(name, length, "if-none-match"))
            out->if_none_match = value;
        break;
    case 14:
        if (same(name, length, "content-length"))
            return parse_length(value, framing, out);
        break;
    case 17:
        framing->transfer_encoding |= same(name, length, "transfer-encoding");
        break;
    default:
        break;
    }
    return 0;
}

static int parse_field(struct line line, struct framing *framing, struct http_request *out)
{
    const char *colon = line.at;
    while (colon < line.end && is_token((unsigned char)*colon))
        colon++;
    if (colon == line.at || colon == line.end || *colon != ':')
        return 400;
    const char *at = colon + 1, *end = line.end;
    while (at < end && (*at == ' ' || *at == '\t'))
        at++;
    while (end > at && (end[-1] == ' ' || end[-1] == '\t'))
        end--;
    for (const char *c = at; c < end; c++)
        if (((unsigned char)*c < ' ' && *c != '\t') || *c == 0x7f)
            return 400;
    struct http_text value = {at, (size_t)(end - at)};
    return use_field(line.at, (size_t)(colon - line.at), value, framing, out);
}

/* Where the message ends, and whether another may follow it (RFC 9112, sections 6.3 and 9.3). */
static int judge(const struct framing *framing, struct http_request *out)
{
    if (framing->hosts > 1 || (framing->hosts == 0 && !out->http_1_0))
        return 400;
    if (framing->transfer_encoding)
        return framing->length_known || out->http_1_0 ? 400 : 501;
    out->keep_alive = !framing->close && (!out->http_1_0 || framing->keep_alive);
    return 0;
}

int http_parse(const char *data, size_t length, struct http_request *out)
{
    const char *end = data + length;
    struct framing framing = {0};
    struct line line;
    out->method = HTTP_OTHER;
    out->http_1_0 = out->keep_alive = out->folder = false;
    out->content_length = out->path_length = 0;
    out->if_none_match = out->if_range = out->range = (struct http_text){NULL, 0};
    if (!next_line(&data, end, &line))
        return 400;
    int status = parse_request_line(line, out);
    for (unsigned fields = 0; status == 0; fields++) {
        if (!next_line(&data, end, &line))
            return 400;
        if (line.at == line.end)
            return judge(&framing, out);
        status = fields < HTTP_FIELDS_MAX ? parse_field(line, &framing, out) : 431;
    }
    return status;
}
