/* The mode `serve`: the protocol of devices/workers/worker_loop.py, which says what each request is, without Python.
 *
 * The laptop writes requests without spaces, and they are flat enough to be read by key. Start with `answer`.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "runtime.h"

enum { REQUEST_BYTES = 65536, MAX_FILES = 64 };

/* Where the value of "key": begins, or NULL. */
static char *value_of(char *request, const char *key) {
    char quoted[32];
    snprintf(quoted, sizeof quoted, "\"%s\":", key);
    char *found = strstr(request, quoted);
    return found ? found + strlen(quoted) : NULL;
}

static double number_of(char *request, const char *key, double missing) {
    char *value = value_of(request, key);
    return value ? strtod(value, NULL) : missing;
}

/* The JSON string that begins at `from`, without its quotes, written over itself; returns what follows, or NULL. */
static char *unquote(char *from, char **text) {
    char *to = *text = ++from;
    while (*from && *from != '"') {
        if (*from == '\\') {
            from++;
            if (*from != '"' && *from != '\\' && *from != '/') return NULL; /* no path has others */
        }
        *to++ = *from++;
    }
    if (!*from) return NULL;
    *to = '\0';
    return from + 1;
}

/* The strings behind each "path":, in order. */
static int named_paths(char *from, char **paths) {
    int count = 0;
    while (from && count < MAX_FILES && (from = strstr(from, "\"path\":\""))) {
        from = unquote(from + strlen("\"path\":"), &paths[count]);
        if (from) count++;
    }
    return count;
}

/* The strings of the array that begins at `from`, in order. */
static int listed_paths(char *from, char **paths) {
    int count = 0;
    while (from && count < MAX_FILES && (*from == '[' || *from == ',') && from[1] == '"') {
        from = unquote(from + 1, &paths[count]);
        if (from) count++;
    }
    return count;
}

static int answer_check(char *request) {
    char *paths[MAX_FILES];
    int count = listed_paths(value_of(request, "outputs"), paths);
    int status = run_model();
    if (!status) status = write_ports(paths, count);
    if (status) return status;
    say("{\"ok\":\"check\",\"outputs\":[");
    for (int i = 0; i < count; i++) {
        say(i ? ",{\"path\":" : "{\"path\":");
        say_text(paths[i]);
        say(",\"dtype\":\"%s\",\"shape\":[", model.outputs[i].dtype);
        for (int axis = 0; axis < model.outputs[i].rank; axis++)
            say(axis ? ",%lld" : "%lld", (long long)model.outputs[i].shape[axis]);
        say("]}");
    }
    say("]}");
    return end_line();
}

static int answer_time(char *request) {
    struct measurement wanted = {
        .group = (long)number_of(request, "group", 1),
        .warmup = (long)number_of(request, "lead", 0),
        .samples = (long)number_of(request, "samples", 1),
        .seconds = number_of(request, "seconds", 0),
    };
    if (wanted.group < 1 || wanted.samples < 1 || wanted.warmup < 0)
        return complain(USAGE, "ValueError", "a group and a number of samples are at least 1");
    int status = take_samples(&wanted);
    if (status) return status;
    say("{\"ok\":\"time\"}");
    return end_line();
}

static int answer_memory(char *request) {
    for (long i = (long)number_of(request, "calls", 1); i > 0; i--) {
        int status = run_model();
        if (status) return status;
    }
    say("{\"ok\":\"memory\",\"peak_rss_bytes\":%lld}", (long long)peak_rss_bytes());
    return end_line();
}

static int answer(char *request, int *going) {
    char *operation = value_of(request, "op");
    char *paths[MAX_FILES];
    int status = OK;
    if (!operation) return complain(USAGE, "ValueError", "a request without \"op\"");
    if (!strncmp(operation, "\"load\"", 6)) {
        say("{\"ok\":\"load\",\"versions\":{\"native\":");
        say_text(model.compiler);
        say("}}");
        return end_line();
    }
    if (!strncmp(operation, "\"bind\"", 6)) {
        if ((status = read_ports(paths, named_paths(request, paths)))) return status;
        say("{\"ok\":\"bind\"}");
        return end_line();
    }
    if (!strncmp(operation, "\"check\"", 7)) return answer_check(request);
    if (!strncmp(operation, "\"time\"", 6)) return answer_time(request);
    if (!strncmp(operation, "\"memory\"", 8)) return answer_memory(request);
    if (!strncmp(operation, "\"quit\"", 6)) {
        *going = 0;
        say("{\"ok\":\"quit\"}");
        return end_line();
    }
    return complain(USAGE, "ValueError", "unknown request");
}

int serve(void) {
    static char request[REQUEST_BYTES];
    for (int going = 1; going && fgets(request, sizeof request, stdin);) {
        if (!strchr(request, '\n') && !feof(stdin)) return complain(USAGE, "ValueError", "a request is too long");
        int status = answer(request, &going);
        if (status) return status;
    }
    return OK;
}
