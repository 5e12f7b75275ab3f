/* Output: one JSON object a line. A line is written whole, so that a reader never sees half of one, unless it is longer
   than what a pipe takes in one piece. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "runtime.h"

enum { LINE_BYTES = 4096 };

static char line[LINE_BYTES];
static size_t used;
static int broken;

static void write_out(void) {
    const char *from = line;
    while (used && !broken) {
        ssize_t written = write(STDOUT_FILENO, from, used);
        if (written < 0 && errno == EINTR) continue;
        if (written <= 0) {
            broken = 1;
            break;
        }
        from += written;
        used -= (size_t)written;
    }
    used = 0;
}

void say(const char *format, ...) {
    for (int tries = 0; tries < 2; tries++) {
        size_t room = sizeof line - 1 - used; /* the last byte is the line's end */
        va_list values;
        va_start(values, format);
        int wanted = vsnprintf(line + used, room, format, values);
        va_end(values);
        if (wanted >= 0 && (size_t)wanted < room) {
            used += (size_t)wanted;
            return;
        }
        write_out();
    }
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
    write_out();
    return broken ? NO_OUTPUT : OK;
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
