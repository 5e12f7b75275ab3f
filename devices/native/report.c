/* Output: one JSON object a line, each written whole, so that a reader never sees half of one. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "runtime.h"

enum { LINE_BYTES = 4096 }; /* a pipe takes so much in one piece */

static char line[LINE_BYTES];
static size_t used;

static void append(const char *format, va_list values) {
    int wanted = vsnprintf(line + used, sizeof line - used, format, values);
    if (wanted > 0) {
        used += (size_t)wanted;
        if (used > sizeof line - 2) used = sizeof line - 2;
    }
}

void say(const char *format, ...) {
    va_list values;
    va_start(values, format);
    append(format, values);
    va_end(values);
}

void say_text(const char *text) {
    say("\"");
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        if (c == '"' || c == '\\') say("\\%c", c);
        else if (c < 0x20) say("\\u%04x", c);
        else say("%c", c);
    }
    say("\"");
}

int end_line(void) {
    line[used++] = '\n';
    const char *from = line;
    while (used) {
        ssize_t written = write(STDOUT_FILENO, from, used);
        if (written < 0 && errno == EINTR) continue;
        if (written <= 0) {
            used = 0;
            return NO_OUTPUT;
        }
        from += written;
        used -= (size_t)written;
    }
    return OK;
}

int complain(int status, const char *kind, const char *format, ...) {
    static char text[LINE_BYTES / 2];
    va_list values;
    va_start(values, format);
    vsnprintf(text, sizeof text, format, values);
    va_end(values);
    used = 0;
    say("{\"error\":");
    say_text(kind);
    say(",\"message\":");
    say_text(text);
    say("}");
    end_line();
    fprintf(stderr, "%s: %s\n", kind, text);
    return status;
}
