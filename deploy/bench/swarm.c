// swarm: many WebSocket, TCP or HTTP clients in one thread, at less cost than any server.
//
// Reads commands from standard input, a line each, and answers each with one line of JSON. Knows
// no product's protocol: a connection is a script of bytes to send and bytes to wait for, and what
// arrives is searched for markers, whose number is the figure of interest. Of WebSocket it knows
// just enough to answer pings (frames of servers are not masked, so the search needs no unframing).
//
// In bytes that are sent, runs of these are replaced: 19 x 01 by the time in nanoseconds, 6 x 02 by
// the number of the connection (or request), 3 x 03 by its channel, 9 x 04 by the seconds left to
// the moment of `due`. A run keeps its length, so frames that were built outside stay right.
//
//   open G MODE PORT TOTAL WAYS CHANNELS RCVBUF KEEP SEND WAIT [SEND WAIT ...]   start group G;
//                                     KEEP 1: they stay open, 2: and who fails comes again
//   wait G SECONDS                    until all of G have run their script
//   drop G | end G                    reset, or close, all connections of G; G is free again
//   mark HEX [HEX ...]                what to count (the first may be followed by a time); resets
//   until K COUNT SECONDS             until marker K was seen COUNT times
//   pub G RATE WINDOW SECONDS FAN HEX publish through G; RATE 0: with WINDOW events on their way
//   ask PORT TOTAL WAYS SECONDS HEX   TOTAL requests, WAYS at a time
//   due SECONDS STEP                  what 04 counts down to: now + SECONDS + number x STEP
//   idle SECONDS                      only read, and answer pings
//
// MODE: ws, raw. WAIT: bytes in hex, `-` for nothing, `eof` for the server's close.

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { GROUPS = 8, STEPS = 6, MARKS = 4, TAIL = 128, BUF = 1 << 18, SAMPLES = 1 << 22,
       CONTROL = 125, HEAD = 4096, SLOW_BYTES = 4096 };
static const double SLOW_EVERY_S = 0.1;  // a slow reader takes SLOW_BYTES this often
static const double AGAIN_S = 1;         // a client that was sent away comes again after this
static const double STALL_S = 2;         // nothing for this long: what is missing is lost
static const double DRAIN_S = 4;         // for what was published last to arrive

typedef struct { char *at; int size; } Bytes;
typedef struct { Bytes send, wait; bool eof; } Step;
typedef enum { FREE, CONNECTING, STEPPING, READY } State;
typedef struct Group Group;

typedef struct {
    Group *group;
    int fd, number, step, tail_size, out_size;
    State state;
    bool sent, upgraded, closing, captured;
    uint64_t skip;               // bytes of the frame, or body, still to come
    uint8_t head[14], op, control[CONTROL];
    int head_size, control_size;
    char tail[TAIL], *out, *reply;
    double asked_s, again_s;
} Conn;

struct Group {
    Conn *conns;
    Step steps[STEPS];
    int size, total, ways, started, done, failed, lost, busy, channels, rcvbuf, port, step_count;
    int waiting, retries;  // connections that come again later, and how often some did
    bool ws, keep, retry, slow, ask;
};

static int ep;
static Group groups[GROUPS + 1];  // the last one asks
static char *buf;
static Bytes marks[MARKS];
static int mark_count;
static uint64_t counted[MARKS], received;
static uint32_t *samples;
static uint64_t sample_count, sample_every = 1, sampled;
static double due_s, due_step_s, slow_s;
static bool told;
static Bytes question;
static uint64_t statuses[6];
static double ask_until_s;
static char failure[TAIL + 1];  // what the last connection that failed had heard, as far as printable

static double now_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double cpu_s(void) {
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static Bytes unhex(const char *text) {
    Bytes found = {NULL, 0};
    if (!strcmp(text, "-") || !strcmp(text, "eof")) return found;
    found.size = (int)strlen(text) / 2;
    found.at = malloc((size_t)found.size + 1);
    for (int i = 0; i < found.size; i++) {
        unsigned byte;
        sscanf(text + 2 * i, "%2x", &byte);
        found.at[i] = (char)byte;
    }
    return found;
}

static bool run_of(const char *at, const char *end, char byte, int size) {
    if (end - at < size) return false;
    for (int i = 0; i < size; i++) if (at[i] != byte) return false;
    return true;
}

static int filled(Bytes from, char *to, int number, int channel) {
    char digits[32];
    memcpy(to, from.at, (size_t)from.size);
    for (char *at = to, *end = to + from.size; at < end; at++) {
        if (*at < 1 || *at > 4) continue;
        if (run_of(at, end, 1, 19)) {
            struct timespec t;
            clock_gettime(CLOCK_MONOTONIC, &t);
            snprintf(digits, sizeof digits, "%010lld%09ld", (long long)t.tv_sec, t.tv_nsec);
            memcpy(at, digits, 19), at += 18;
        } else if (run_of(at, end, 2, 6)) {
            snprintf(digits, sizeof digits, "%06d", number % 1000000);
            memcpy(at, digits, 6), at += 5;
        } else if (run_of(at, end, 3, 3)) {
            snprintf(digits, sizeof digits, "%03d", channel % 1000);
            memcpy(at, digits, 3), at += 2;
        } else if (run_of(at, end, 4, 9)) {
            snprintf(digits, sizeof digits, "%9.3f", due_s + number * due_step_s - now_s());
            memcpy(at, digits, 9), at += 8;
        }
    }
    return from.size;
}

static void start_more(Group *group);

static void gone(Conn *conn, bool reset) {
    if (conn->state == FREE) return;
    if (reset) {
        struct linger hard = {1, 0};
        setsockopt(conn->fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
    }
    close(conn->fd);
    conn->state = FREE;
    conn->out_size = 0;
}

static void finished(Conn *conn, bool well) {
    Group *group = conn->group;
    group->busy--;
    if (well) group->done++;
    else if (group->retry) {
        group->waiting++, group->retries++;
        conn->again_s = now_s() + AGAIN_S;
    } else group->failed++;
    if (!well || !group->keep) gone(conn, false);
    else conn->state = READY;
    start_more(group);
}

static void broken(Conn *conn) {
    bool was_ready = conn->state == READY;
    if (conn->state == STEPPING && conn->group->steps[conn->step].eof) { finished(conn, true); return; }
    if (was_ready) conn->group->lost++, gone(conn, false);
    else if (conn->state != FREE) {
        int size = 0;
        for (int i = 0; i < conn->tail_size; i++) {
            char heard = conn->tail[i];
            if (heard >= ' ' && heard <= '~' && heard != '"' && heard != '\\') failure[size++] = heard;
        }
        failure[size] = 0;
        finished(conn, false);
    }
}

static void push(Conn *conn, const char *data, int size) {
    int sent = 0;
    if (!conn->out_size) {
        sent = (int)send(conn->fd, data, (size_t)size, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent == size) return;
        if (sent < 0) {
            if (errno != EAGAIN) return;  // reading will tell that it is broken
            sent = 0;
        }
    }
    conn->out = realloc(conn->out, (size_t)(conn->out_size + size - sent));
    memcpy(conn->out + conn->out_size, data + sent, (size_t)(size - sent));
    conn->out_size += size - sent;
    struct epoll_event want = {EPOLLIN | EPOLLOUT, {.ptr = conn}};
    epoll_ctl(ep, EPOLL_CTL_MOD, conn->fd, &want);
}

static void push_rest(Conn *conn) {
    int sent = (int)send(conn->fd, conn->out, (size_t)conn->out_size, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent > 0) {
        conn->out_size -= sent;
        memmove(conn->out, conn->out + sent, (size_t)conn->out_size);
    }
    if (!conn->out_size) {
        struct epoll_event want = {EPOLLIN, {.ptr = conn}};
        epoll_ctl(ep, EPOLL_CTL_MOD, conn->fd, &want);
    }
}

static void push_filled(Conn *conn, Bytes from, int number) {
    static char made[1 << 16];
    push(conn, made, filled(from, made, number, conn->number % conn->group->channels));
}

// Sends what the script says next, up to something to wait for; true when the script is over.
static bool step_on(Conn *conn) {
    Group *group = conn->group;
    while (conn->step < group->step_count) {
        Step *step = &group->steps[conn->step];
        if (!conn->sent && step->send.size) push_filled(conn, step->send, conn->number);
        conn->sent = true;
        if (step->wait.size || step->eof) return false;
        conn->step++, conn->sent = false;
    }
    return true;
}

static bool start(Group *group, Conn *conn) {
    conn->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    int on = 1;
    setsockopt(conn->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (group->rcvbuf) {
        setsockopt(conn->fd, SOL_SOCKET, SO_RCVBUF, &group->rcvbuf, sizeof group->rcvbuf);
    }
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)group->port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int failed = connect(conn->fd, (struct sockaddr *)&to, sizeof to);
    conn->group = group;
    conn->step = conn->tail_size = conn->head_size = conn->out_size = 0;
    conn->sent = conn->upgraded = conn->closing = false;
    conn->skip = 0;
    if (failed && errno != EINPROGRESS) { close(conn->fd); return false; }
    conn->state = CONNECTING;
    struct epoll_event want = {EPOLLOUT, {.ptr = conn}};
    epoll_ctl(ep, EPOLL_CTL_ADD, conn->fd, &want);
    return true;
}

static void start_more(Group *group) {
    for (int i = 0; i < group->size && group->busy < group->ways; i++) {
        if (group->started >= group->total) return;
        Conn *conn = &group->conns[group->keep ? group->started : i];
        if (conn->state != FREE) continue;
        conn->number = group->started++;
        if (start(group, conn)) group->busy++;
        else group->failed++;
    }
}

static void start_again(Group *group, double at_s) {
    for (int i = 0; group->waiting && i < group->size && group->busy < group->ways; i++) {
        Conn *conn = &group->conns[i];
        if (conn->state != FREE || !conn->again_s || conn->again_s > at_s) continue;
        conn->again_s = 0;
        group->waiting--;
        if (start(group, conn)) group->busy++;
        else group->failed++;
    }
}

static void frame_over(Conn *conn) {
    uint8_t made[6 + CONTROL] = {0};  // a mask of zeros is a mask
    int size = conn->control_size;
    if (conn->op == 9 || conn->op == 8) {
        made[0] = conn->op == 9 ? 0x8a : 0x88;
    } else if (conn->op == 1 && size == 1 && conn->control[0] == '2') {  // Engine.IO's ping
        made[0] = 0x81;
        conn->control[0] = '3';
    } else return;
    if (conn->op == 8 && conn->closing) return;
    conn->closing = conn->op == 8;
    made[1] = (uint8_t)(0x80 | size);
    memcpy(made + 6, conn->control, (size_t)size);
    push(conn, (char *)made, 6 + size);
}

static void frames(Conn *conn, const uint8_t *at, int size) {
    while (size) {
        if (conn->skip) {
            int some = conn->skip < (uint64_t)size ? (int)conn->skip : size;
            for (int i = 0; conn->captured && i < some && conn->control_size < CONTROL; i++) {
                conn->control[conn->control_size++] = at[i];
            }
            conn->skip -= (uint64_t)some, at += some, size -= some;
            if (!conn->skip) frame_over(conn);
            continue;
        }
        conn->head[conn->head_size++] = *at++, size--;
        if (conn->head_size < 2) continue;
        int length = conn->head[1] & 127, extra = length == 126 ? 2 : length == 127 ? 8 : 0;
        if (conn->head_size < 2 + extra) continue;
        conn->skip = extra ? 0 : (uint64_t)length;
        for (int i = 0; i < extra; i++) conn->skip = conn->skip << 8 | conn->head[2 + i];
        conn->op = conn->head[0] & 15;
        conn->captured = conn->op >= 8 || conn->skip == 1;
        conn->head_size = conn->control_size = 0;
        if (!conn->skip) frame_over(conn);
    }
}

static void count(const char *at, const char *end, int fresh) {
    double arrived_s = 0;
    for (int k = 0; k < mark_count; k++) {
        int size = marks[k].size, length = size + (k ? 0 : 19);
        const char *from = end - fresh - (length - 1);  // before it everything was searched
        if (from < at) from = at;
        while ((from = memchr(from, marks[k].at[0], (size_t)(end - from)))) {
            if (end - from < length) break;
            if (memcmp(from, marks[k].at, (size_t)size)) { from++; continue; }
            counted[k]++;
            from += size;
            if (k || sampled++ % sample_every) continue;
            if (!arrived_s) arrived_s = now_s();
            char digits[20] = {0};
            memcpy(digits, from, 19);
            double made_s = (double)(strtoull(digits, NULL, 10)) / 1e9;
            if (made_s > 0 && sample_count < SAMPLES) {
                double took = (arrived_s - made_s) * 1e6;
                samples[sample_count++] = took > 0 ? (uint32_t)took : 0;
            }
        }
    }
}

// Goes through the script as far as what arrived allows; returns where the search goes on.
static const char *stepping(Conn *conn, const char *at, const char *end) {
    while (conn->state == STEPPING) {
        Step *step = &conn->group->steps[conn->step];
        if (step->eof) break;
        const char *found = memmem(at, (size_t)(end - at), step->wait.at, (size_t)step->wait.size);
        if (!found) break;
        at = found + step->wait.size;
        conn->step++, conn->sent = false;
        if (step_on(conn)) finished(conn, true);
    }
    return at;
}

static void ask(Conn *conn) {
    Group *group = conn->group;
    if (group->started >= group->total || now_s() > ask_until_s) { group->busy--; return; }
    conn->asked_s = now_s();
    conn->tail_size = 0;
    push_filled(conn, question, group->started++);
}

static void answered(Conn *conn) {
    conn->group->done++;
    double took = (now_s() - conn->asked_s) * 1e6;
    if (sample_count < SAMPLES) samples[sample_count++] = (uint32_t)took;
    ask(conn);
}

static void response(Conn *conn, const char *at, int size) {
    if (!conn->reply) conn->reply = malloc(HEAD + 1);
    if (conn->skip) {
        int some = conn->skip < (uint64_t)size ? (int)conn->skip : size;
        conn->skip -= (uint64_t)some;
        if (!conn->skip) answered(conn);
        return;
    }
    int some = size < HEAD - conn->tail_size ? size : HEAD - conn->tail_size;
    memcpy(conn->reply + conn->tail_size, at, (size_t)some);
    conn->tail_size += some;
    conn->reply[conn->tail_size] = 0;
    char *over = strstr(conn->reply, "\r\n\r\n");
    if (!over) return;
    int status = atoi(conn->reply + 9) / 100;
    statuses[status > 0 && status < 6 ? status : 0]++;
    const char *length = strcasestr(conn->reply, "\r\ncontent-length:");
    uint64_t body = length && length < over ? strtoull(length + 17, NULL, 10) : 0;
    uint64_t have = (uint64_t)(conn->reply + conn->tail_size - over - 4) + (uint64_t)(size - some);
    conn->skip = body > have ? body - have : 0;
    if (!conn->skip) answered(conn);
}

static void read_some(Conn *conn, int most) {
    char *fresh = buf + TAIL;
    int size = (int)recv(conn->fd, fresh, (size_t)most, MSG_DONTWAIT);
    if (size < 0 && errno == EAGAIN) return;
    if (size <= 0) {
        if (conn->group->ask) conn->group->failed++, conn->group->busy--, gone(conn, false);
        else broken(conn);
        return;
    }
    received += (uint64_t)size;
    if (conn->group->ask) { response(conn, fresh, size); return; }
    if (conn->group->ws) {
        if (conn->upgraded) frames(conn, (uint8_t *)fresh, size);
        else {
            char *over = memmem(fresh, (size_t)size, "\r\n\r\n", 4);  // comes in one piece
            conn->upgraded = over;
            if (over) frames(conn, (uint8_t *)over + 4, (int)(fresh + size - over - 4));
        }
    }
    if (conn->group->slow && conn->state == READY) return;  // counts for nothing
    const char *at = memcpy(fresh - conn->tail_size, conn->tail, (size_t)conn->tail_size);
    const char *end = fresh + size;
    if (mark_count) count(at, end, size);
    at = stepping(conn, at, end);
    if (conn->state == FREE) return;
    int kept = (int)(end - at) < TAIL ? (int)(end - at) : TAIL;
    memcpy(conn->tail, end - kept, (size_t)kept);
    conn->tail_size = kept;
}

static void turn(double most_s) {
    static struct epoll_event ready[512];
    double at_s = now_s();
    bool any_slow = false;
    for (Group *group = groups; group < groups + GROUPS; group++) {
        any_slow |= group->slow;
        start_again(group, at_s);
        if (!group->slow || at_s < slow_s) continue;
        for (int i = 0; i < group->size; i++) {
            if (group->conns[i].state == READY) read_some(&group->conns[i], SLOW_BYTES);
        }
    }
    if (any_slow && at_s >= slow_s) slow_s = at_s + SLOW_EVERY_S;
    if (any_slow && most_s > SLOW_EVERY_S) most_s = SLOW_EVERY_S;
    struct timespec wait = {(time_t)most_s, (long)((most_s - (double)(time_t)most_s) * 1e9)};
    int found = epoll_pwait2(ep, ready, 512, &wait, NULL);
    for (int i = 0; i < found; i++) {
        Conn *conn = ready[i].data.ptr;
        if (!conn) { told = true; continue; }
        if (conn->state == FREE) continue;
        if (conn->state == CONNECTING) {
            int error = 0;
            socklen_t size = sizeof error;
            getsockopt(conn->fd, SOL_SOCKET, SO_ERROR, &error, &size);
            if (error) { finished(conn, false); continue; }
            conn->state = STEPPING;
            struct epoll_event want = {EPOLLIN, {.ptr = conn}};
            epoll_ctl(ep, EPOLL_CTL_MOD, conn->fd, &want);
            if (conn->group->ask) conn->state = READY, ask(conn);
            else if (step_on(conn)) finished(conn, true);
            continue;
        }
        if (ready[i].events & EPOLLOUT) push_rest(conn);
        if (ready[i].events & ~(uint32_t)EPOLLOUT) {
            if (conn->group->slow && conn->state == READY) {
                epoll_ctl(ep, EPOLL_CTL_DEL, conn->fd, NULL);  // from now on by the clock
                continue;
            }
            read_some(conn, BUF);
        }
    }
}

static int by_size(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static void say_samples(void) {
    qsort(samples, sample_count, sizeof *samples, by_size);
    const char *names[] = {"p50_us", "p99_us", "max_us"};
    const double shares[] = {0.5, 0.99, 1};
    for (int i = 0; i < 3; i++) {
        uint64_t at = (uint64_t)((double)(sample_count - 1) * shares[i]);
        printf(",\"%s\":%u", names[i], sample_count ? samples[at] : 0);
    }
}

static void forget_samples(uint64_t every) {
    sample_count = sampled = 0;
    sample_every = every;
}

static void publish(Group *group, double rate, int window, double for_s, int fan, Bytes event) {
    forget_samples(rate ? 1 : 64);
    memset(counted, 0, sizeof counted);
    received = 0;
    double began_s = now_s(), began_cpu_s = cpu_s(), stop_s = began_s + for_s, moved_s = began_s;
    uint64_t made = 0, seen = 0, in_time = 0, most = (uint64_t)window;
    int next = 0;
    while (true) {
        double at_s = now_s();
        bool over = at_s >= stop_s;
        if (!over) in_time = counted[0];
        uint64_t arrived = counted[0] / (uint64_t)fan;
        uint64_t may = arrived + most, wanted = rate ? (uint64_t)((at_s - began_s) * rate) + 1 : may;
        if (wanted > may) wanted = may;
        for (int tries = 0; !over && made < wanted && tries < group->size; next++) {
            Conn *conn = &group->conns[next % group->size];
            if (conn->state != READY) { tries++; continue; }
            push_filled(conn, event, (int)(made % 1000000));
            made++, tries = 0;
        }
        if (counted[0] != seen) seen = counted[0], moved_s = now_s();
        if (over && (seen >= made * (uint64_t)fan || at_s > moved_s + STALL_S ||
                     at_s > stop_s + DRAIN_S)) break;
        double due = over || !rate || wanted == may ? 0.05
                     : began_s + (double)made / rate - now_s();
        turn(due > 0 ? due : 0);
    }
    bool stalled = now_s() > moved_s + STALL_S && counted[0] < made * (uint64_t)fan;
    printf("{\"published\":%lu,\"delivered\":%lu,\"rate\":%.3f,\"lost\":%lu", made, counted[0],
           (double)in_time / for_s, stalled ? made * (uint64_t)fan - counted[0] : 0);
    printf(",\"seconds\":%.6f,\"bytes\":%lu,\"client_s\":%.6f", now_s() - began_s, received,
           cpu_s() - began_cpu_s);
    say_samples();
    printf("}\n");
}

static void opened(Group *group, char **word, int words) {
    memset(group, 0, sizeof *group);
    group->ws = !strcmp(word[0], "ws");
    group->port = atoi(word[1]), group->total = atoi(word[2]), group->ways = atoi(word[3]);
    group->channels = atoi(word[4]), group->rcvbuf = atoi(word[5]), group->keep = atoi(word[6]);
    group->retry = atoi(word[6]) == 2;
    group->slow = group->rcvbuf > 0;
    for (int i = 7; i + 1 < words && group->step_count < STEPS; i += 2) {
        group->steps[group->step_count++] =
            (Step){unhex(word[i]), unhex(word[i + 1]), !strcmp(word[i + 1], "eof")};
    }
    group->size = group->keep ? group->total : group->ways;
    group->conns = calloc((size_t)group->size, sizeof *group->conns);
    start_more(group);
    printf("{}\n");
}

static void ended(Group *group, bool reset) {
    for (int i = 0; i < group->size; i++) {
        gone(&group->conns[i], reset);
        free(group->conns[i].out), free(group->conns[i].reply);
    }
    for (int i = 0; i < group->step_count; i++) {
        free(group->steps[i].send.at), free(group->steps[i].wait.at);
    }
    free(group->conns);
    memset(group, 0, sizeof *group);
}

static void asked(char **word) {
    Group *group = &groups[GROUPS];
    forget_samples(1);
    memset(statuses, 0, sizeof statuses);
    received = 0;
    question = unhex(word[4]);
    group->port = atoi(word[0]), group->total = atoi(word[1]), group->size = atoi(word[2]);
    group->channels = 1000, group->ask = true;
    group->conns = calloc((size_t)group->size, sizeof *group->conns);
    double began_s = now_s(), began_cpu_s = cpu_s();
    ask_until_s = began_s + atof(word[3]);
    for (int i = 0; i < group->size; i++) {
        group->conns[i].number = i;
        if (start(group, &group->conns[i])) group->busy++;
    }
    while (group->busy > 0 && now_s() < ask_until_s + DRAIN_S) turn(0.05);
    printf("{\"done\":%d,\"failed\":%d,\"seconds\":%.6f,\"bytes\":%lu,\"client_s\":%.6f", group->done,
           group->failed, now_s() - began_s, received, cpu_s() - began_cpu_s);
    printf(",\"ok\":%lu,\"unchanged\":%lu,\"refused\":%lu", statuses[2], statuses[3],
           statuses[0] + statuses[1] + statuses[4] + statuses[5]);
    say_samples();
    printf("}\n");
    ended(group, false);
    free(question.at);
}

static void waited(Group *group, double for_s) {
    double began_s = now_s(), began_cpu_s = cpu_s();
    while (group->done + group->failed < group->total && now_s() < began_s + for_s) turn(0.05);
    printf("{\"done\":%d,\"failed\":%d,\"lost\":%d", group->done, group->failed, group->lost);
    printf(",\"total\":%d,\"retries\":%d", group->total, group->retries);
    printf(",\"seconds\":%.6f,\"client_s\":%.6f,\"bytes\":%lu,\"why\":\"%s\"}\n", now_s() - began_s,
           cpu_s() - began_cpu_s, received, group->failed + group->retries ? failure : "");
}

static void obey(char *line) {
    static char *word[64];
    int words = 0;
    for (char *rest = line; words < 64 && (word[words] = strtok_r(rest, " \n", &rest));) words++;
    if (!words) return;
    Group *group = words > 1 && atoi(word[1]) >= 0 && atoi(word[1]) < GROUPS ? &groups[atoi(word[1])]
                                                                            : groups;
    if (!strcmp(word[0], "open")) opened(group, word + 2, words - 2);
    else if (!strcmp(word[0], "wait")) waited(group, atof(word[2]));
    else if (!strcmp(word[0], "drop")) ended(group, true), printf("{}\n");
    else if (!strcmp(word[0], "end")) ended(group, false), printf("{}\n");
    else if (!strcmp(word[0], "ask")) asked(word + 1);
    else if (!strcmp(word[0], "pub")) {
        Bytes event = unhex(word[6]);
        publish(group, atof(word[2]), atoi(word[3]), atof(word[4]), atoi(word[5]), event);
        free(event.at);
    } else if (!strcmp(word[0], "mark")) {
        for (int i = 0; i < mark_count; i++) free(marks[i].at);
        mark_count = 0;
        for (int i = 1; i < words && mark_count < MARKS; i++) marks[mark_count++] = unhex(word[i]);
        memset(counted, 0, sizeof counted);
        received = 0;
        printf("{}\n");
    } else if (!strcmp(word[0], "until")) {
        int which = atoi(word[1]);
        uint64_t target = strtoull(word[2], NULL, 10);
        double began_s = now_s(), until_s = began_s + atof(word[3]);
        while (counted[which] < target && now_s() < until_s) turn(0.05);
        printf("{\"counted\":%lu,\"bytes\":%lu,\"seconds\":%.6f}\n", counted[which], received,
               now_s() - began_s);
    } else if (!strcmp(word[0], "due")) {
        due_s = now_s() + atof(word[1]), due_step_s = atof(word[2]);
        printf("{\"due_s\":%.6f}\n", due_s);
    } else if (!strcmp(word[0], "idle")) {
        double until_s = now_s() + atof(word[1]);
        while (now_s() < until_s) turn(0.05);
        int lost = 0;
        for (int i = 0; i < GROUPS; i++) lost += groups[i].lost;
        printf("{\"lost\":%d}\n", lost);
    } else printf("{\"error\":\"unknown command\"}\n");
    fflush(stdout);
}

int main(void) {
    static char line[1 << 20];
    ep = epoll_create1(0);
    buf = malloc(TAIL + BUF);
    samples = malloc(sizeof *samples * SAMPLES);
    struct epoll_event want = {EPOLLIN, {.ptr = NULL}};
    epoll_ctl(ep, EPOLL_CTL_ADD, STDIN_FILENO, &want);
    setvbuf(stdin, NULL, _IONBF, 0);
    while (true) {
        turn(1);
        if (!told) continue;
        told = false;
        if (!fgets(line, sizeof line, stdin)) return 0;
        obey(line);
    }
}
