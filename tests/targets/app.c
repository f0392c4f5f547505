// The one program of the containers that the tests enter: static, so that it needs nothing beside it. As the container's
// first process it serves HTTP on its loopback and echoes on a Unix socket; its other words are what a test does inside a
// container that has no shell.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#define PORT 8080
#define SOCKET "/dev/shm/app.sock"

static int fail(const char *what) {
  fprintf(stderr, "app: %s: %s\n", what, strerror(errno));
  return 1;
}

static int write_all(int fd, const char *bytes, size_t len) {
  while (len > 0) {
    ssize_t n = write(fd, bytes, len);
    if (n <= 0) return -1;
    bytes += n;
    len -= n;
  }
  return 0;
}

static int copy(int from, int to) {
  static char buffer[65536];
  ssize_t n;
  while ((n = read(from, buffer, sizeof buffer)) > 0)
    if (write_all(to, buffer, n) < 0) return -1;
  return n;
}

static int tcp(int port, int (*join)(int, const struct sockaddr *, socklen_t)) {
  int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  return join(fd, (struct sockaddr *)&to, sizeof to) < 0 ? -1 : fd;
}

static int local(const char *path, int (*join)(int, const struct sockaddr *, socklen_t)) {
  int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  struct sockaddr_un to = {.sun_family = AF_UNIX};
  strncpy(to.sun_path, path, sizeof to.sun_path - 1);
  return join(fd, (struct sockaddr *)&to, sizeof to) < 0 ? -1 : fd;
}

static void leave(int signal) {
  (void)signal;
  unlink(SOCKET);
  _exit(0);
}

static void answer(int client, int is_http) {
  if (!is_http) {
    copy(client, client);
    return;
  }
  char request[4096];
  if (read(client, request, sizeof request) > 0) {
    const char *said = "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nfrom the app\n";
    write_all(client, said, strlen(said));
  }
}

static int serve(void) {
  // A first process has no default actions.
  signal(SIGTERM, leave);
  signal(SIGINT, leave);
  signal(SIGCHLD, SIG_IGN);
  unlink(SOCKET);
  int listening[] = {tcp(PORT, bind), local(SOCKET, bind)};
  for (int i = 0; i < 2; i++)
    if (listening[i] < 0 || listen(listening[i], 100) < 0) return fail("listen");
  chmod(SOCKET, 0777);
  if (fork() == 0) listening[0] = listening[1];
  for (;;) {
    int client = accept(listening[0], NULL, NULL);
    if (client < 0) continue;
    if (fork() == 0) {
      answer(client, listening[0] != listening[1]);
      _exit(0);
    }
    close(client);
  }
}

// Sends the text, and copies the answer.
static int talk(int fd, const char *text) {
  if (fd < 0) return fail("connect");
  if (write_all(fd, text, strlen(text)) < 0) return fail("write");
  shutdown(fd, SHUT_WR);
  return copy(fd, 1) < 0 ? fail("read") : 0;
}

static int show(const char *path) {
  int fd = open(path, O_RDONLY);
  if (fd < 0) return fail(path);
  copy(fd, 1);
  close(fd);
  return 0;
}

// All that confines a process, and its environment.
static int confinement(void) {
  static const char *files[] = {"/proc/self/status", "/proc/self/limits", "/proc/self/cgroup", "/proc/self/oom_score_adj",
                                "/proc/self/attr/current"};
  for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
    printf("== %s\n", files[i]);
    fflush(stdout);
    show(files[i]);
  }
  static const char *spaces[] = {"cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"};
  printf("\n== namespaces\n");
  for (size_t i = 0; i < sizeof spaces / sizeof *spaces; i++) {
    char path[64], to[128] = "none";
    snprintf(path, sizeof path, "/proc/self/ns/%s", spaces[i]);
    if (readlink(path, to, sizeof to - 1) < 0) strcpy(to, "none");
    printf("%s\n", to);
  }
  char folder[4096];
  printf("== folder\n%s\n== environment\n", getcwd(folder, sizeof folder) ? folder : "none");
  fflush(stdout);
  return show("/proc/self/environ");
}

// The open descriptors of a process, each with what it leads to.
static int descriptors(const char *pid) {
  char path[300], to[4096];
  snprintf(path, sizeof path, "/proc/%s/fd", pid);
  DIR *folder = opendir(path);
  if (!folder) return fail(path);
  for (struct dirent *entry; (entry = readdir(folder));) {
    if (*entry->d_name == '.' || (!strcmp(pid, "self") && atoi(entry->d_name) == dirfd(folder))) continue;
    snprintf(path, sizeof path, "/proc/%s/fd/%s", pid, entry->d_name);
    ssize_t n = readlink(path, to, sizeof to - 1);
    if (n < 0) continue;
    to[n] = 0;
    printf("%s %s\n", entry->d_name, to);
  }
  return 0;
}

static int is_pid(const char *name) { return *name >= '0' && *name <= '9'; }

// Calls something with the id of every process but the first and this one.
static int each(int (*visit)(const char *pid)) {
  DIR *folder = opendir("/proc");
  int count = 0;
  for (struct dirent *entry; (entry = readdir(folder));)
    if (is_pid(entry->d_name) && atoi(entry->d_name) != 1 && atoi(entry->d_name) != getpid()) count += visit(entry->d_name);
  return count;
}

static int one_line(const char *pid, const char *file, char *line, size_t len) {
  char path[300];
  snprintf(path, sizeof path, "/proc/%s/%s", pid, file);
  int fd = open(path, O_RDONLY);
  ssize_t n = fd < 0 ? -1 : read(fd, line, len - 1);
  if (fd >= 0) close(fd);
  if (n < 0) return -1;
  for (ssize_t i = 0; i < n; i++)
    if (!line[i]) line[i] = ' ';
  line[n] = 0;
  return 0;
}

static int list(const char *pid) {
  char line[4096];
  if (one_line(pid, "cmdline", line, sizeof line) == 0) printf("%s %s\n", pid, line);
  return 1;
}

static int end(const char *pid) { return kill(atoi(pid), SIGKILL) == 0; }

// Writes to the program of a process and to every descriptor of it, as CVE-2019-5736 did. Reports what let it.
static int attack(const char *pid) {
  char path[300], to[4096], line[300];
  if (one_line(pid, "cmdline", line, sizeof line) < 0 || !strstr(line, "serve")) return 0;
  int written = 0;
  for (int fd = -1; fd < 256; fd++) {
    if (fd < 0) snprintf(path, sizeof path, "/proc/%s/exe", pid);
    else snprintf(path, sizeof path, "/proc/%s/fd/%d", pid, fd);
    ssize_t n = readlink(path, to, sizeof to - 1);
    if (n < 0) continue;
    to[n] = 0;
    // Only files: a pipe or socket of the connection is the container's own to spoil.
    if (strchr(to, ':') && strncmp(to, "/memfd:", 7)) continue;
    if (!strncmp(to, "/dev/", 5)) continue;
    printf("tried %s\n", to);
    for (int mode = O_WRONLY; mode <= O_RDWR; mode++) {
      int opened = open(path, mode);
      if (opened >= 0 && (pwrite(opened, "#", 1, 0) > 0 || ftruncate(opened, 0) == 0)) {
        printf("WRITTEN %s\n", to);
        written++;
      }
      if (opened >= 0) close(opened);
    }
    // A folder from outside would be a way out of the container.
    char out[310];
    snprintf(out, sizeof out, "%s/..", path);
    if (fd >= 0 && access(out, F_OK) == 0) {
      printf("FOLDER %s\n", to);
      written++;
    }
  }
  return written;
}

static int breach(int done, const char *what) {
  if (done) printf("BREACH %s\n", what);
  return done;
}

static int is_another(int folder, const char *path) {
  struct stat top, other;
  return fstatat(folder, "", &top, AT_EMPTY_PATH) < 0 || fstatat(folder, path, &other, 0) < 0 || top.st_dev != other.st_dev ||
         top.st_ino != other.st_ino;
}

// Takes over the holder of a view, and has it make system calls. A process that can do nothing is refused each of them.
static int take_over(const char *pid) {
  char line[300];
  if (one_line(pid, "cmdline", line, sizeof line) < 0 || !strstr(line, " view")) return 0;
  int process = atoi(pid), breaches = 0;
  if (ptrace(PTRACE_ATTACH, process, NULL, NULL) < 0 || waitpid(process, NULL, __WALL) < 0)
    return printf("tried the holder, which is closed\n") < 0;
  printf("took over the holder\n");
#ifdef __x86_64__
  struct user_regs_struct before, call;
  static const long numbers[] = {SYS_getuid, SYS_openat, SYS_unshare, SYS_setns, SYS_socket, SYS_mount, SYS_execve,
                                 SYS_prctl, SYS_write, SYS_ptrace, SYS_keyctl, SYS_bpf, SYS_fork, SYS_clone};
  ptrace(PTRACE_GETREGS, process, NULL, &before);
  for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
    call = before;
    // It was stopped behind the instruction that makes a system call.
    call.rip -= 2;
    call.orig_rax = -1;
    call.rax = numbers[i];
    call.rdi = CLONE_NEWUSER;
    call.rsi = call.rdx = call.r10 = 0;
    ptrace(PTRACE_SETREGS, process, NULL, &call);
    ptrace(PTRACE_SINGLESTEP, process, NULL, NULL);
    waitpid(process, NULL, __WALL);
    ptrace(PTRACE_GETREGS, process, NULL, &call);
    char what[64];
    snprintf(what, sizeof what, "system call %ld: %lld", numbers[i], (long long)call.rax);
    breaches += breach((long long)call.rax != -EPERM, what);
  }
  ptrace(PTRACE_SETREGS, process, NULL, &before);
#endif
  ptrace(PTRACE_DETACH, process, NULL, NULL);
  return breaches;
}

// Tries to leave, to change and to mount the tools that a process holds. The numbers of system calls are those of all
// processors.
static int tamper(const char *pid) {
  char path[300], line[300], at[400];
  if (one_line(pid, "cmdline", line, sizeof line) < 0 || !strstr(line, " hold")) return 0;
  snprintf(path, sizeof path, "/proc/%s/fd/5", pid);
  int tools = open(path, O_PATH), breaches = 0;
  printf("tried tools%s\n", tools < 0 ? ", which are closed" : "");
  if (tools < 0) return 0;
  breaches += breach(is_another(tools, ".."), "the folder above");
  breaches += breach(is_another(tools, "../../../bin/../.."), "the folder above that");
  uint64_t how[3] = {O_PATH, 0, 0};
  int above = syscall(437, tools, "..", how, sizeof how);
  breaches += breach(above >= 0 && is_another(above, ".") , "openat2");
  uint64_t attributes[4] = {0, 1 | 2 | 4, 0, 0};
  breaches += breach(syscall(442, tools, "", AT_EMPTY_PATH, attributes, sizeof attributes) == 0, "mount_setattr");
  breaches += breach(syscall(428, tools, "", AT_EMPTY_PATH | 1) >= 0, "open_tree");
  mkdir("/dev/shm/at", 0777);
  breaches += breach(syscall(429, tools, "", AT_FDCWD, "/dev/shm/at", 4) == 0, "move_mount");
  breaches += breach(mount(path, "/dev/shm/at", NULL, MS_BIND, NULL) == 0, "bind");
  breaches += breach(mount(NULL, path, NULL, MS_REMOUNT | MS_BIND, NULL) == 0, "remount");
  rmdir("/dev/shm/at");
  static const char *files[] = {"bin/busybox", "run", "root/bin/bash", "bin", "."};
  for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
    snprintf(at, sizeof at, "%s/%s", path, files[i]);
    for (int mode = O_WRONLY; mode <= O_RDWR; mode++) breaches += breach(open(at, mode) >= 0, files[i]);
    breaches += breach(truncate(at, 0) == 0 || chmod(at, 04777) == 0 || chown(at, 1, 1) == 0 || unlink(at) == 0, files[i]);
  }
  snprintf(at, sizeof at, "%s/new", path);
  return breaches + breach(mkdir(at, 0777) == 0 || open(at, O_CREAT | O_WRONLY, 0666) >= 0, "a new file");
}

static int resized;
static void on_resize(int signal) { resized = signal; }

static int size(void) {
  struct winsize now;
  if (ioctl(0, TIOCGWINSZ, &now) < 0) return fail("size");
  printf("size=%d %d\n", now.ws_row, now.ws_col);
  return fflush(stdout);
}

// Prints the size of its terminal at each change, until a line comes.
static int sizes(void) {
  struct sigaction action = {.sa_handler = on_resize};
  struct pollfd input = {.events = POLLIN};
  sigset_t set, before;
  sigemptyset(&set);
  sigaddset(&set, SIGWINCH);
  sigaction(SIGWINCH, &action, NULL);
  // It comes while ppoll waits, and at no other time, so none is lost.
  sigprocmask(SIG_BLOCK, &set, &before);
  if (size()) return 1;
  while (ppoll(&input, 1, NULL, &before) < 0 && errno == EINTR) size();
  return 0;
}

static int caught;
static void on_signal(int signal) { caught = signal; }

// Waits for a signal, and says which it was.
static int signalled(void) {
  int all[] = {SIGHUP, SIGINT, SIGTERM, SIGUSR1};
  sigset_t set, before;
  sigemptyset(&set);
  struct sigaction action = {.sa_handler = on_signal};
  for (int i = 0; i < 4; i++) {
    sigaddset(&set, all[i]);
    sigaction(all[i], &action, NULL);
  }
  sigprocmask(SIG_BLOCK, &set, &before);
  printf("waiting\n");
  fflush(stdout);
  while (!caught) sigsuspend(&before);
  printf("caught %d\n", caught);
  return 3;
}

// The number of keys in the agent.
static int agent(void) {
  const char *path = getenv("SSH_AUTH_SOCK");
  if (!path) {
    printf("no agent\n");
    return 1;
  }
  struct stat of;
  int fd = local(path, connect);
  unsigned char said[9];
  if (fd < 0 || stat(path, &of) < 0) return fail(path);
  if (write_all(fd, "\0\0\0\1\x0b", 5) < 0) return fail("write");
  for (ssize_t have = 0, n; have < 9; have += n)
    if ((n = read(fd, said + have, 9 - have)) <= 0) return fail("read");
  printf("%d keys\n", said[7] * 256 + said[8]);
  return 0;
}

int main(int count, char **words) {
  const char *word = count > 1 ? words[1] : "serve", *first = count > 2 ? words[2] : "";
  if (!strcmp(word, "serve")) return serve();
  if (!strcmp(word, "exit")) return atoi(first);
  if (!strcmp(word, "kill")) return kill(getpid(), atoi(first));
  if (!strcmp(word, "sleep")) return sleep(atoi(first));
  if (!strcmp(word, "cat")) return copy(0, 1) < 0;
  if (!strcmp(word, "show")) return show(first);
  if (!strcmp(word, "complain")) return write_all(2, "to stderr\n", 10);
  if (!strcmp(word, "get")) return talk(tcp(atoi(first), connect), count > 3 ? words[3] : "");
  if (!strcmp(word, "unix")) return talk(local(first, connect), count > 3 ? words[3] : "");
  if (!strcmp(word, "confinement")) return confinement();
  if (!strcmp(word, "descriptors")) return descriptors(first);
  if (!strcmp(word, "sizes")) return sizes();
  if (!strcmp(word, "signalled")) return signalled();
  if (!strcmp(word, "agent")) return agent();
  if (!strcmp(word, "processes")) return each(list), 0;
  if (!strcmp(word, "end-all")) return each(end) == 0;
  if (!strcmp(word, "take-over")) return printf("breaches: %d\n", each(take_over)) < 0;
  if (!strcmp(word, "tamper")) return printf("breaches: %d\n", each(tamper)) < 0;
  if (!strcmp(word, "attack")) return printf("written: %d\n", each(attack)) < 0;
  if (!strcmp(word, "say")) {
    for (int i = 2; i < count; i++) printf("[%s]", words[i]);
    return printf("\n") < 0;
  }
  fprintf(stderr, "app: no such word: %s\n", word);
  return 2;
}
