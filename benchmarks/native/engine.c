// A vLLM server that costs almost nothing: one thread, epoll. Any POST whose body says "stream":true gets CHUNKS events,
// one every INTERVAL_US (0: all at once); any other gets one JSON answer. Bodies must come with Content-Length.
// usage: engine PORT CHUNKS INTERVAL_US
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
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

#define MAX_FD 65536
#define FIRST_CAPACITY 16384
#define END_OF_STREAM "e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"

struct client {
    char *in;
    size_t length, capacity, head;
    long body;
    int left;            // chunks still to send; 0 when no stream is open
    int64_t due;         // when the next one is due, ns
};

static struct client *clients[MAX_FD];
static int streaming[MAX_FD], streams, chunks;
static int64_t interval;
static int poller;
static char answer[2048], event[1024];
static int answer_size, event_size;

static int64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void prepare(void)
{
    static const char words[] = "The quick brown fox jumps over the lazy dog. The quick brown fox jumps over the lazy dog. ";
    char body[1024], data[512];
    int size = snprintf(body, sizeof body,
        "{\"id\":\"chatcmpl-0123456789abcdef\",\"object\":\"chat.completion\",\"created\":1760000000,\"model\":\"m\","
        "\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"%s%s\"},\"finish_reason\":\"stop\"}],"
        "\"usage\":{\"prompt_tokens\":250,\"total_tokens\":300,\"completion_tokens\":50}}", words, words);
    answer_size = snprintf(answer, sizeof answer,
        "HTTP/1.1 200 OK\r\nserver: uvicorn\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s", size, body);
    size = snprintf(data, sizeof data,
        "data: {\"id\":\"chatcmpl-0123456789abcdef\",\"object\":\"chat.completion.chunk\",\"created\":1760000000,"
        "\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" fox\"},\"logprobs\":null,"
        "\"finish_reason\":null,\"token_ids\":null}]}\n\n");
    event_size = snprintf(event, sizeof event, "%x\r\n%s\r\n", size, data);
}

static void drop(int fd)
{
    struct client *c = clients[fd];
    if (!c)
        return;
    clients[fd] = NULL;
    if (c->left) {
        for (int i = 0; i < streams; i++) {
            if (streaming[i] == fd) {
                streaming[i] = streaming[--streams];
                break;
            }
        }
    }
    close(fd);
    free(c->in);
    free(c);
}

static int put(int fd, const char *data, size_t size)
{
    while (size) {
        ssize_t sent = send(fd, data, size, MSG_NOSIGNAL);
        if (sent < 0) {
            if (errno != EAGAIN)
                return -1;
            usleep(50);
            continue;
        }
        data += sent;
        size -= sent;
    }
    return 0;
}

static int reply(int fd, struct client *c)
{
    static const char head[] = "HTTP/1.1 200 OK\r\nserver: uvicorn\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
                               "transfer-encoding: chunked\r\n\r\n";
    const char *body = c->in + c->head;
    // The field may stand anywhere, but never inside a long prompt: only the ends are searched.
    size_t window = c->body < 400 ? (size_t)c->body : 400;
    if (!memmem(body, window, "\"stream\":true", 13) && !memmem(body + c->body - window, window, "\"stream\":true", 13))
        return put(fd, answer, answer_size);
    if (put(fd, head, sizeof head - 1) || put(fd, event, event_size))
        return -1;
    if (interval) {
        c->left = chunks - 1;
        c->due = now() + interval;
        streaming[streams++] = fd;
        return 0;
    }
    for (int i = 1; i < chunks; i++)
        if (put(fd, event, event_size))
            return -1;
    return put(fd, END_OF_STREAM, sizeof END_OF_STREAM - 1);
}

static int parse(int fd, struct client *c)
{
    while (c->length && !c->left) {
        if (!c->head) {
            char *end = memmem(c->in, c->length, "\r\n\r\n", 4);
            if (!end)
                return 0;
            c->head = end - c->in + 4;
            c->body = 0;
            for (char *line = c->in; line < end; line = (char *)memchr(line, '\n', end + 2 - line) + 1)
                if (!strncasecmp(line, "content-length:", 15))
                    c->body = atol(line + 15);
        }
        size_t used = c->head + c->body;
        if (c->length < used)
            return 0;
        if (reply(fd, c))
            return -1;
        memmove(c->in, c->in + used, c->length - used);
        c->length -= used;
        c->head = 0;
    }
    return 0;
}

static void send_due(void)
{
    int64_t at = now();
    for (int i = streams - 1; i >= 0; i--) {
        int fd = streaming[i];
        struct client *c = clients[fd];
        int failed = 0;
        while (!failed && c->left && c->due <= at) {
            failed = put(fd, event, event_size);
            c->due += interval;
            c->left--;
        }
        if (!failed && !c->left) {
            failed = put(fd, END_OF_STREAM, sizeof END_OF_STREAM - 1);
            streaming[i] = streaming[--streams];
        }
        if (failed)
            drop(fd);
    }
}

static void receive(int fd)
{
    struct client *c = clients[fd];
    if (c->capacity - c->length < 8192) {
        c->capacity *= 2;
        c->in = realloc(c->in, c->capacity);
    }
    ssize_t got = recv(fd, c->in + c->length, c->capacity - c->length, 0);
    if (got > 0) {
        c->length += got;
        if (!parse(fd, c))
            return;
    } else if (got < 0 && errno == EAGAIN) {
        return;
    }
    drop(fd);
}

static void accept_all(int listener)
{
    for (int fd; (fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0;) {
        int one = 1;
        if (fd >= MAX_FD) {
            close(fd);
            continue;
        }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        struct client *c = clients[fd] = calloc(1, sizeof *c);
        c->capacity = FIRST_CAPACITY;
        c->in = malloc(c->capacity);
        struct epoll_event wanted = {.events = EPOLLIN, .data.fd = fd};
        epoll_ctl(poller, EPOLL_CTL_ADD, fd, &wanted);
    }
}

int main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    signal(SIGPIPE, SIG_IGN);
    prepare();
    chunks = atoi(argv[2]);
    interval = atol(argv[3]) * 1000LL;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(listener, (void *)&address, sizeof address) || listen(listener, 4096))
        return 1;
    poller = epoll_create1(0);
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    struct itimerspec every = {{0, 1000000}, {0, 1000000}};
    timerfd_settime(timer, 0, &every, NULL);
    int watched[] = {listener, timer};
    for (int i = 0; i < 2; i++) {
        struct epoll_event wanted = {.events = EPOLLIN, .data.fd = watched[i]};
        epoll_ctl(poller, EPOLL_CTL_ADD, watched[i], &wanted);
    }
    for (struct epoll_event found[256];;) {
        int count = epoll_wait(poller, found, 256, -1);
        for (int i = 0; i < count; i++) {
            int fd = found[i].data.fd;
            uint64_t ticks;
            if (fd == listener)
                accept_all(listener);
            else if (fd == timer && read(timer, &ticks, sizeof ticks) > 0)
                send_due();
            else if (fd != timer && clients[fd])
                receive(fd);
        }
    }
}
