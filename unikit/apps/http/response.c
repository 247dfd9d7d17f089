/* SPDX-License-Identifier: MIT */
/* Answers. The head of a file's 200 answer is built once, at the start; what remains per request is
 * a lookup, two copies and the lines that change: date and connection. */
#include "server.h"

#include <unikit/rt/date.h>

/* What is not the common case: the compiler shall save bytes there, not cycles. */
#define COLD __attribute__((cold, noinline))

struct prepared {
    const char *text;
    size_t length;
};

struct http_counters http_counters;

static struct prepared *prepared; /* by the file's index */
static const struct kit_file *first_file;

static const char server_line[] = "Server: unikit\r\n";

/* ---- putting text together: everything is cut at the room there is, never beyond ------------ */

static void add(struct http_answer *answer, const char *text, size_t length)
{
    size_t room = HTTP_ANSWER_ROOM - answer->text_length;
    size_t taken = length < room ? length : room;
    memcpy(answer->text + answer->text_length, text, taken);
    answer->text_length += taken;
}

static void add_text(struct http_answer *answer, const char *text)
{
    add(answer, text, strlen(text));
}

COLD __attribute__((format(printf, 2, 3))) static void add_format(struct http_answer *answer,
                                                                  const char *format, ...)
{
    char line[HTTP_ANSWER_ROOM];
    va_list arguments;
    va_start(arguments, format);
    size_t length = kit_vformat(line, sizeof line, format, arguments);
    va_end(arguments);
    add(answer, line, length < sizeof line ? length : sizeof line - 1);
}

COLD static const char *reason(int status)
{
    switch (status) {
    case 301:
        return "Moved Permanently";
    case 304:
        return "Not Modified";
    case 400:
        return "Bad Request";
    case 404:
        return "Not Found";
    case 405:
        return "Method Not Allowed";
    case 408:
        return "Request Timeout";
    case 414:
        return "URI Too Long";
    case 416:
        return "Range Not Satisfiable";
    case 431:
        return "Request Header Fields Too Large";
    case 501:
        return "Not Implemented";
    case 503:
        return "Service Unavailable";
    default:
        return "HTTP Version Not Supported";
    }
}

/* ---- dates ------------------------------------------------------------------------------------
 */

COLD void http_date(char *out, uint64_t seconds)
{
    static const char pattern[] = "Thu, 01 Jan 1970 00:00:00 GMT";
    static const char days[] = "SunMonTueWedThuFriSat";
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    struct kit_date date = kit_date_of(seconds);
    memcpy(out, pattern, sizeof pattern);
    memcpy(out, days + 3u * date.weekday, 3);
    kit_date_digits(out + 5, 2, date.day);
    memcpy(out + 8, months + 3u * (date.month - 1u), 3);
    kit_date_digits(out + 12, 4, date.year);
    kit_date_digits(out + 17, 2, date.hour);
    kit_date_digits(out + 20, 2, date.minute);
    kit_date_digits(out + 23, 2, date.second);
}

static void add_date(struct http_answer *answer)
{
    static char line[] = "Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n";
    static uint64_t of;
    uint64_t seconds = kit_clock_wall() / KIT_NS_PER_S;
    if (seconds == 0) /* no clock: RFC 9110, section 6.6.1, then wants no date */
        return;
    if (seconds != of) {
        http_date(line + 6, seconds);
        line[sizeof line - 3] = '\r'; /* where http_date ended its text */
        of = seconds;
    }
    add(answer, line, sizeof line - 1);
}

/* The lines that end every head. */
static __attribute__((noinline)) void end_head(struct http_answer *answer)
{
    add_date(answer);
    if (answer->close)
        add_text(answer, "Connection: close\r\n\r\n");
    else if (answer->http_1_0)
        add_text(answer, "Connection: keep-alive\r\n\r\n");
    else
        add(answer, "\r\n", 2);
}

/* ---- short answers of our own ------------------------------------------------------------------
 */

COLD static void answer_short(struct http_answer *answer, int status, const char *fields)
{
    static const char body[] = "<!doctype html>\n<title>%d %s</title>\n<h1>%d %s</h1>\n";
    const char *words = reason(status);
    size_t length = kit_format(NULL, 0, body, status, words, status, words);
    http_counters.errors += status >= 400;
    add_format(answer, "HTTP/1.1 %d %s\r\n%s", status, words, fields);
    add_text(answer, server_line);
    if (status != 304)
        add_format(answer, "Content-Type: text/html; charset=utf-8\r\nContent-Length: %zu\r\n",
                   length);
    end_head(answer);
    if (status != 304 && !answer->head_only)
        add_format(answer, body, status, words, status, words);
}

void http_answer_error(struct http_answer *answer, int status)
{
    answer->close = true;
    answer->head_only = false;
    answer_short(answer, status, "");
}

/* Sends the browser to the folder's name with its slash, so that relative links in it work. The
 * path is our own normal form, encoded anew: nothing of the request is echoed. */
COLD static void answer_moved(struct http_answer *answer, const struct http_request *request)
{
    static const char digits[] = "0123456789ABCDEF";
    char fields[HTTP_LOCATION_MAX + 32] = "Location: /";
    size_t at = strlen(fields);
    for (size_t i = 0; i < request->path_length; i++) {
        unsigned char c = (unsigned char)request->path[i];
        bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                     c == '-' || c == '.' || c == '_' || c == '~' || c == '/';
        if (at + 3 > HTTP_LOCATION_MAX) {
            answer_short(answer, 404, "");
            return;
        }
        if (plain) {
            fields[at++] = (char)c;
        } else {
            fields[at++] = '%';
            fields[at++] = digits[c >> 4];
            fields[at++] = digits[c & 15];
        }
    }
    memcpy(fields + at, "/\r\n", 4);
    answer_short(answer, 301, fields);
}

COLD static void answer_page(struct http_answer *answer, bool json)
{
    size_t size, length;
    char *page = http_status_page(json, &size, &length);
    if (page == NULL) {
        answer_short(answer, 503, "");
        return;
    }
    add_format(answer,
               "HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %zu\r\n"
               "Cache-Control: no-store\r\n",
               json ? "application/json" : "text/html; charset=utf-8", length);
    add_text(answer, server_line);
    end_head(answer);
    answer->page = page;
    answer->page_size = size;
    answer->body = (unsigned char *)page;
    answer->body_left = answer->head_only ? 0 : length;
}

/* ---- files
 * --------------------------------------------------------------------------------------- */

static size_t format_head(char *buffer, size_t size, const struct kit_file *file)
{
    return kit_format(buffer, size,
                      "HTTP/1.1 200 OK\r\nContent-Type: %.160s\r\nContent-Length: %zu\r\n"
                      "ETag: \"%016llx\"\r\nAccept-Ranges: bytes\r\n%s",
                      file->type, file->size, (unsigned long long)file->digest, server_line);
}

__attribute__((cold)) int http_prepare(void)
{
    size_t count = 0, total = 0;
    const struct kit_file *file;
    for (; (file = kit_file_at(count)) != NULL; count++)
        total += format_head(NULL, 0, file) + 1;
    first_file = kit_file_at(0);
    prepared = kit_memory_alloc(count * sizeof *prepared + total, alignof(struct prepared));
    if (prepared == NULL)
        return KIT_ENOMEM;
    char *at = (char *)(prepared + count);
    for (size_t i = 0; i < count; i++) {
        size_t length = format_head(NULL, 0, first_file + i);
        format_head(at, length + 1, first_file + i);
        prepared[i] = (struct prepared){at, length};
        at += length + 1;
    }
    return 0;
}

COLD static void answer_part(struct http_answer *answer, const struct kit_file *file,
                             uint64_t first, uint64_t last)
{
    add_format(answer,
               "HTTP/1.1 206 Partial Content\r\nContent-Type: %.160s\r\nContent-Length: %llu\r\n"
               "Content-Range: bytes %llu-%llu/%zu\r\nETag: \"%016llx\"\r\n",
               file->type, (unsigned long long)(last - first + 1), (unsigned long long)first,
               (unsigned long long)last, file->size, (unsigned long long)file->digest);
    add_text(answer, server_line);
    end_head(answer);
    answer->body = (const unsigned char *)file->data + first;
    answer->body_left = (size_t)(last - first + 1);
}

/* The answer depends on conditions or ranges. False: it does not, after all. */
COLD static bool answer_conditionally(struct http_answer *answer,
                                      const struct http_request *request,
                                      const struct kit_file *file)
{
    char text[24], fields[80];
    size_t length = kit_format(text, sizeof text, "\"%016llx\"", (unsigned long long)file->digest);
    struct http_text tag = {text, length};
    if (http_tag_listed(request->if_none_match, tag)) {
        kit_format(fields, sizeof fields, "ETag: %s\r\n", text);
        answer_short(answer, 304, fields);
        return true;
    }
    /* If-Range needs a strong match (RFC 9110, section 13.1.5); a date never matches. */
    bool stale =
        request->if_range.at != NULL && (request->if_range.length != tag.length ||
                                         memcmp(request->if_range.at, tag.at, tag.length) != 0);
    if (request->method != HTTP_GET || stale)
        return false;
    uint64_t first, last;
    switch (http_range(request->range, file->size, &first, &last)) {
    case HTTP_RANGE_PART:
        answer_part(answer, file, first, last);
        return true;
    case HTTP_RANGE_UNSATISFIABLE:
        kit_format(fields, sizeof fields, "Content-Range: bytes */%zu\r\n", file->size);
        answer_short(answer, 416, fields);
        return true;
    case HTTP_RANGE_WHOLE:
        break;
    }
    return false;
}

static void answer_file(struct http_answer *answer, const struct http_request *request,
                        const struct kit_file *file)
{
    if ((request->if_none_match.at != NULL || request->range.at != NULL) &&
        answer_conditionally(answer, request, file))
        return;
    const struct prepared *head = &prepared[file - first_file];
    add(answer, head->text, head->length);
    end_head(answer);
    answer->body = file->data;
    answer->body_left = answer->head_only ? 0 : file->size;
}

/* The file a target names, with index.html for folders. *moved: it is a folder without slash. */
static const struct kit_file *find(struct http_request *request, bool *moved)
{
    static const char index[] = "/index.html";
    const struct kit_file *file = NULL;
    if (!request->folder)
        file = kit_file_find(request->path, request->path_length);
    if (file != NULL)
        return file;
    /* Without a folder's name in front, without its slash. */
    size_t skip = request->path_length == 0;
    memcpy(request->path + request->path_length, index + skip, sizeof index - 1 - skip);
    file = kit_file_find(request->path, request->path_length + sizeof index - 1 - skip);
    *moved = file != NULL && !request->folder;
    return file;
}

static bool is(const struct http_request *request, const char *path)
{
    return !request->folder && request->path_length == strlen(path) &&
           memcmp(request->path, path, request->path_length) == 0;
}

void http_answer_request(struct http_answer *answer, const char *head, size_t length)
{
    struct http_request request;
    int status = http_parse(head, length, &request);
    http_counters.requests++;
    answer->head_only = request.method == HTTP_HEAD;
    answer->http_1_0 = request.http_1_0;
    answer->discard = request.content_length;
    answer->close = !request.keep_alive || request.content_length > HTTP_DISCARD_MAX;
    if (status != 0) {
        answer->close = true;
        answer_short(answer, status, "");
        return;
    }
    if (request.method == HTTP_OTHER) {
        answer_short(answer, 405, "Allow: GET, HEAD\r\n");
        return;
    }
    bool moved = false;
    const struct kit_file *file = find(&request, &moved);
    if (moved)
        answer_moved(answer, &request);
    else if (file != NULL)
        answer_file(answer, &request, file);
    else if (is(&request, "status") || is(&request, "status.json"))
        answer_page(answer, request.path_length > 6);
    else
        answer_short(answer, 404, "");
}
