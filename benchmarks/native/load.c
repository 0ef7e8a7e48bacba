// A load generator that costs almost nothing: one thread, epoll, HTTP/1.1 keep-alive. RATE 0 is a closed loop over CONNECTIONS;
// otherwise arrivals are Poisson with a fixed seed and latency counts from the scheduled arrival. Prints one JSON line.
// usage: load PORT CONNECTIONS SECONDS WARMUP RATE BODY_FILE
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <math.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum state { HEAD, LENGTH, SIZE, CHUNK, END_OF_CHUNK, TRAILER };

struct series {
    double *values;
    size_t count, capacity;
};

struct connection {
    int fd, busy, status, first;
    enum state state;
    char head[8192];
    size_t head_size;
    long left;
    int line;            // characters of the current line
    int64_t since;
};

static struct connection *connections;
static int poller, *idle, idles;
static char *request;
static size_t request_size;
static struct sockaddr_in address;
static struct series latency, first_byte;
static long good, bad, chunks, failures;
static int64_t measured_from;
static int64_t *waiting;
static size_t waiting_head, waiting_tail, waiting_capacity;

static int64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void add(struct series *s, double value)
{
    if (s->count == s->capacity) {
        s->capacity = s->capacity ? 2 * s->capacity : 65536;
        s->values = realloc(s->values, s->capacity * sizeof *s->values);
    }
    s->values[s->count++] = value;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double quantile(struct series *s, double q)
{
    return s->count ? s->values[(size_t)(q * (s->count - 1) + 0.5)] : 0;
}

static void open_connection(struct connection *c)
{
    int one = 1;
    if (c->fd >= 0)
        close(c->fd);
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(c->fd, (void *)&address, sizeof address)) {
        perror("connect");
        exit(1);
    }
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct epoll_event wanted = {.events = EPOLLIN, .data.u32 = c - connections};
    epoll_ctl(poller, EPOLL_CTL_ADD, c->fd, &wanted);
}

static void start(struct connection *c, int64_t since)
{
    c->busy = 1;
    c->since = since;
    c->state = HEAD;
    c->head_size = 0;
    c->first = 1;
    for (size_t sent = 0; sent < request_size;) {
        ssize_t got = send(c->fd, request + sent, request_size - sent, MSG_NOSIGNAL);
        if (got < 0) {
            failures++;
            open_connection(c);
            sent = 0;
        } else {
            sent += got;
        }
    }
}

// How an answer's body is framed; 0 when the head is not complete or was an interim one.
static int read_head(struct connection *c)
{
    if (c->head_size < 4 || memcmp(c->head + c->head_size - 4, "\r\n\r\n", 4))
        return 0;
    c->head[c->head_size] = 0;
    c->status = atoi(c->head + 9);
    char *length = strcasestr(c->head, "\r\ncontent-length:");
    c->state = length ? LENGTH : SIZE;
    c->left = length ? atol(length + 17) : 0;
    c->line = 0;
    return 1;
}

// True when the answer is complete.
static int feed(struct connection *c, const char *data, size_t size)
{
    while (size) {
        char x = *data;
        if (c->state == LENGTH || c->state == CHUNK) {
            size_t step = size < (size_t)c->left ? size : (size_t)c->left;
            data += step;
            size -= step;
            c->left -= step;
            if (!c->left) {
                if (c->state == LENGTH)
                    return 1;
                c->state = END_OF_CHUNK;
            }
            continue;
        }
        data++;
        size--;
        if (c->state == HEAD) {
            if (c->head_size < sizeof c->head - 1)
                c->head[c->head_size++] = x;
            if (read_head(c) && c->state == LENGTH && !c->left)
                return 1;
        } else if (c->state == SIZE && x != '\n') {
            if (x != '\r')
                c->left = c->left * 16 + (x <= '9' ? x - '0' : (x | 32) - 'a' + 10);
        } else if (c->state == SIZE) {
            if (c->left && now() >= measured_from)
                chunks++;
            c->state = c->left ? CHUNK : TRAILER;
            c->line = 0;
        } else if (c->state == END_OF_CHUNK && x == '\n') {
            c->state = SIZE;
            c->left = 0;
        } else if (c->state == TRAILER) {
            if (x == '\n' && !c->line)
                return 1;
            c->line = x == '\n' ? 0 : c->line + (x != '\r');
        }
    }
    return 0;
}

static void receive(struct connection *c)
{
    static char buffer[262144];
    ssize_t got = recv(c->fd, buffer, sizeof buffer, 0);
    int64_t at = now();
    if (got <= 0) {
        failures++;
        c->busy = 0;
        open_connection(c);
        idle[idles++] = c - connections;
        return;
    }
    if (c->first && c->busy) {
        c->first = 0;
        if (at >= measured_from)
            add(&first_byte, (at - c->since) / 1e3);
    }
    if (!feed(c, buffer, got))
        return;
    c->busy = 0;
    idle[idles++] = c - connections;
    if (at >= measured_from) {
        add(&latency, (at - c->since) / 1e3);
        c->status == 200 ? good++ : bad++;
    }
}

static void queue_arrival(int64_t at)
{
    if (waiting_tail == waiting_capacity) {
        waiting_capacity = waiting_capacity ? 2 * waiting_capacity : 4096;
        waiting = realloc(waiting, waiting_capacity * sizeof *waiting);
    }
    waiting[waiting_tail++] = at;
}

static void build_request(const char *port, const char *file)
{
    FILE *f = fopen(file, "rb");
    if (!f)
        exit(2);
    fseek(f, 0, SEEK_END);
    long size = ftell(f);
    rewind(f);
    request = malloc(size + 1024);
    int head = sprintf(request,
        "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:%s\r\nUser-Agent: OpenAI/Python 3.57.0\r\n"
        "Accept: application/json\r\nContent-Type: application/json\r\nAuthorization: Bearer sk-1234\r\n"
        "Content-Length: %ld\r\n\r\n", port, size);
    if (fread(request + head, 1, size, f) != (size_t)size)
        exit(2);
    request_size = head + size;
    fclose(f);
}

static void print(double seconds)
{
    qsort(latency.values, latency.count, sizeof(double), compare);
    qsort(first_byte.values, first_byte.count, sizeof(double), compare);
    printf("{\"good\": %ld, \"bad\": %ld, \"failures\": %ld, \"chunks\": %ld, \"seconds\": %.3f, "
           "\"p50_us\": %.1f, \"p99_us\": %.1f, \"first_p50_us\": %.1f, \"first_p99_us\": %.1f}\n",
           good, bad, failures, chunks, seconds, quantile(&latency, 0.5), quantile(&latency, 0.99),
           quantile(&first_byte, 0.5), quantile(&first_byte, 0.99));
}

int main(int argc, char **argv)
{
    if (argc != 7)
        return 2;
    signal(SIGPIPE, SIG_IGN);
    int count = atoi(argv[2]);
    double seconds = atof(argv[3]), warmup = atof(argv[4]), rate = atof(argv[5]);
    address.sin_family = AF_INET;
    address.sin_port = htons(atoi(argv[1]));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    build_request(argv[1], argv[6]);
    poller = epoll_create1(0);
    connections = calloc(count, sizeof *connections);
    idle = calloc(count + 1, sizeof *idle);
    for (int i = 0; i < count; i++) {
        connections[i].fd = -1;
        open_connection(&connections[i]);
        idle[idles++] = i;
    }
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    struct itimerspec every = {{0, 200000}, {0, 200000}};
    if (rate > 0)
        timerfd_settime(timer, 0, &every, NULL);
    struct epoll_event wanted = {.events = EPOLLIN, .data.u32 = UINT32_MAX};
    epoll_ctl(poller, EPOLL_CTL_ADD, timer, &wanted);
    srand48(1);
    int64_t began = now(), next = began;
    measured_from = began + (int64_t)(warmup * 1e9);
    int64_t end = measured_from + (int64_t)(seconds * 1e9);
    for (struct epoll_event found[256]; now() < end;) {
        while (rate > 0 && next <= now()) {
            queue_arrival(next);
            next += (int64_t)(-log(1 - drand48()) / rate * 1e9);
        }
        while (idles && (rate <= 0 || waiting_head < waiting_tail))
            start(&connections[idle[--idles]], rate > 0 ? waiting[waiting_head++] : now());
        int n = epoll_wait(poller, found, 256, 100);
        for (int i = 0; i < n; i++) {
            uint64_t ticks;
            if (found[i].data.u32 == UINT32_MAX) {
                if (read(timer, &ticks, sizeof ticks) < 0 && errno != EAGAIN)
                    return 1;
            } else {
                receive(&connections[found[i].data.u32]);
            }
        }
    }
    print((now() - measured_from) / 1e9);
    return 0;
}
