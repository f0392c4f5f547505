/* A stand-in for Microsoft's ssh.exe, for tests under wine: it has Windows' rules and no SSH.
 *
 * The SSH is that of the host's OpenSSH, which `rows.py` runs. This program hands its arguments to rows.py, shows what
 * comes back, and does the one thing that the host cannot do: it starts the ProxyCommand as Microsoft's OpenSSH does,
 * and carries its bytes to the host's ssh. Taken from github.com/PowerShell/openssh-portable, contrib/win32/win32compat:
 *
 * - misc.c, build_commandline_string: the program's name gets quotes, which end at the first space behind `.exe`.
 * - w32fd.c, spawn_child_internal: CreateProcess, which inherits handles; there is no shell.
 * - fileio.c, fileio_pipe: standard input and output are named pipes that are opened FILE_FLAG_OVERLAPPED.
 * - signal_sigchld.c, w32_kill: when ssh ends, the ProxyCommand is ended by TerminateProcess with code 0.
 *
 * Frames to and from rows.py are a letter, the length in four bytes (big-endian), and the bytes:
 *   to:   A argument, D current folder, G (all are said), I input, C the ProxyCommand has ended (its code as text)
 *   from: O output, E error output, P port and command, K end the ProxyCommand, X exit code
 */
#include <winsock2.h>
#include <windows.h>
#include <shellapi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static SOCKET driver;
static CRITICAL_SECTION sending;

struct relay {
    HANDLE pipe;
    SOCKET socket;
};

static int send_all(SOCKET to, const char *bytes, int length) {
    while (length > 0) {
        int sent = send(to, bytes, length, 0);
        if (sent <= 0) return 0;
        bytes += sent;
        length -= sent;
    }
    return 1;
}

static int receive_all(SOCKET from, char *bytes, int length) {
    while (length > 0) {
        int received = recv(from, bytes, length, 0);
        if (received <= 0) return 0;
        bytes += received;
        length -= received;
    }
    return 1;
}

static void frame(char kind, const char *bytes, int length) {
    char head[5] = {kind, (char)(length >> 24), (char)(length >> 16), (char)(length >> 8), (char)length};
    EnterCriticalSection(&sending);
    if (!send_all(driver, head, 5) || !send_all(driver, bytes, length)) ExitProcess(254);
    LeaveCriticalSection(&sending);
}

static void frame_wide(char kind, const wchar_t *text) {
    char bytes[32768];
    int length = WideCharToMultiByte(CP_UTF8, 0, text, -1, bytes, sizeof bytes, NULL, NULL);
    frame(kind, bytes, length - 1);
}

static SOCKET connected_to(int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((u_short)port)};
    SOCKET made = socket(AF_INET, SOCK_STREAM, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(made, (struct sockaddr *)&address, sizeof address) != 0) ExitProcess(253);
    return made;
}

/* Both ends of a pipe, as fileio_pipe makes them. */
static void overlapped_pipe(HANDLE *reading, HANDLE *writing) {
    static int counter;
    char name[100];
    SECURITY_ATTRIBUTES inherited = {sizeof inherited, NULL, TRUE};
    snprintf(name, sizeof name, "\\\\.\\Pipe\\W32PosixPipe.%08lx.%08x", GetCurrentProcessId(), counter++);
    *writing = CreateNamedPipeA(name, PIPE_ACCESS_OUTBOUND | FILE_FLAG_OVERLAPPED, PIPE_TYPE_BYTE | PIPE_WAIT, 1, 4096,
                                4096, 0, &inherited);
    *reading = CreateFileA(name, GENERIC_READ, 0, &inherited, OPEN_EXISTING,
                           FILE_ATTRIBUTE_NORMAL | FILE_FLAG_OVERLAPPED, NULL);
    if (*writing == INVALID_HANDLE_VALUE || *reading == INVALID_HANDLE_VALUE) ExitProcess(252);
}

/* One overlapped read or write, waited for. Returns the number of bytes, 0 at the end. */
static DWORD moved(HANDLE pipe, char *bytes, DWORD length, int is_write) {
    OVERLAPPED overlapped = {0};
    DWORD done = 0;
    overlapped.hEvent = CreateEventA(NULL, TRUE, FALSE, NULL);
    BOOL ok = is_write ? WriteFile(pipe, bytes, length, NULL, &overlapped) : ReadFile(pipe, bytes, length, NULL, &overlapped);
    if (!ok && GetLastError() != ERROR_IO_PENDING) done = 0;
    else if (!GetOverlappedResult(pipe, &overlapped, &done, TRUE)) done = 0;
    CloseHandle(overlapped.hEvent);
    return done;
}

static DWORD WINAPI from_proxy(void *given) {
    struct relay *relay = given;
    char bytes[4096];
    DWORD length;
    while ((length = moved(relay->pipe, bytes, sizeof bytes, 0)) > 0 && send_all(relay->socket, bytes, (int)length)) {}
    shutdown(relay->socket, SD_SEND);
    return 0;
}

static DWORD WINAPI to_proxy(void *given) {
    struct relay *relay = given;
    char bytes[4096];
    int length;
    while ((length = recv(relay->socket, bytes, sizeof bytes, 0)) > 0) {
        for (int at = 0; at < length;) {
            DWORD written = moved(relay->pipe, bytes + at, (DWORD)(length - at), 1);
            if (written == 0) break;
            at += (int)written;
        }
    }
    CloseHandle(relay->pipe);
    return 0;
}

static DWORD WINAPI wait_for_proxy(void *given) {
    DWORD code;
    char text[20];
    WaitForSingleObject(given, INFINITE);
    GetExitCodeProcess(given, &code);
    frame('C', text, snprintf(text, sizeof text, "%lu", code));
    return 0;
}

static DWORD WINAPI send_input(void *given) {
    static char bytes[65536];
    DWORD length;
    (void)given;
    while (ReadFile(GetStdHandle(STD_INPUT_HANDLE), bytes, sizeof bytes, &length, NULL) && length > 0)
        frame('I', bytes, (int)length);
    frame('I', bytes, 0);
    return 0;
}

/* Starts the command, as build_commandline_string and spawn_child_internal do. */
static HANDLE start_proxy(char *command, int port) {
    static struct relay in, out;
    char *line = calloc(1, strlen(command) + 3), *end, *extension;
    wchar_t *wide = calloc(sizeof *wide, strlen(command) + 3), *from = wide;
    HANDLE in_read, out_write;
    STARTUPINFOW start = {.cb = sizeof start, .dwFlags = STARTF_USESTDHANDLES};
    PROCESS_INFORMATION process;
    BOOL ok;

    if (command[0] == '"') strcpy(line, command);
    else if ((extension = strstr(command, ".exe")) && (end = strchr(extension, ' ')))
        sprintf(line, "\"%.*s\"%s", (int)(end - command), command, end);
    else sprintf(line, "\"%s\"", command);
    MultiByteToWideChar(CP_UTF8, 0, line, -1, wide, (int)strlen(command) + 3);

    overlapped_pipe(&in_read, &in.pipe);
    overlapped_pipe(&out.pipe, &out_write);
    SetHandleInformation(in.pipe, HANDLE_FLAG_INHERIT, 0);
    SetHandleInformation(out.pipe, HANDLE_FLAG_INHERIT, 0);
    start.hStdInput = in_read;
    start.hStdOutput = out_write;
    start.hStdError = GetStdHandle(STD_ERROR_HANDLE);
    do {
        ok = CreateProcessW(NULL, from, NULL, NULL, TRUE, 0, NULL, NULL, &start, &process);
        if (ok || GetLastError() != ERROR_FILE_NOT_FOUND || command[0] == '"') break;
        from++;
        wide[wcslen(wide) - 1] = 0;
    } while (from == wide + 1);
    CloseHandle(in_read);
    CloseHandle(out_write);
    in.socket = out.socket = connected_to(port);
    CreateThread(NULL, 0, from_proxy, &out, 0, NULL);
    CreateThread(NULL, 0, to_proxy, &in, 0, NULL);
    if (!ok) {
        char text[100];
        frame('C', text, snprintf(text, sizeof text, "CreateProcessW failed error:%lu", GetLastError()));
        return NULL;
    }
    CreateThread(NULL, 0, wait_for_proxy, process.hProcess, 0, NULL);
    return process.hProcess;
}

int main(void) {
    WSADATA data;
    HANDLE proxy = NULL;
    const char *port = getenv("STAND_IN_PORT");
    wchar_t folder[32768];
    int count;
    wchar_t **arguments = CommandLineToArgvW(GetCommandLineW(), &count);

    if (port == NULL || WSAStartup(MAKEWORD(2, 2), &data) != 0) return 251;
    InitializeCriticalSection(&sending);
    driver = connected_to(atoi(port));
    for (int i = 1; i < count; i++) frame_wide('A', arguments[i]);
    GetCurrentDirectoryW(sizeof folder / sizeof *folder, folder);
    frame_wide('D', folder);
    frame('G', "", 0);
    CreateThread(NULL, 0, send_input, NULL, 0, NULL);
    for (;;) {
        unsigned char head[5];
        if (!receive_all(driver, (char *)head, 5)) break;
        int length = head[1] << 24 | head[2] << 16 | head[3] << 8 | head[4];
        char *bytes = calloc(1, (size_t)length + 1);
        DWORD written;
        if (!receive_all(driver, bytes, length)) break;
        switch (head[0]) {
        case 'O': WriteFile(GetStdHandle(STD_OUTPUT_HANDLE), bytes, (DWORD)length, &written, NULL); break;
        case 'E': WriteFile(GetStdHandle(STD_ERROR_HANDLE), bytes, (DWORD)length, &written, NULL); break;
        case 'P': proxy = start_proxy(strchr(bytes, ' ') + 1, atoi(bytes)); break;
        case 'K': if (proxy) TerminateProcess(proxy, 0); break;
        case 'X': ExitProcess((UINT)atoi(bytes));
        }
        free(bytes);
    }
    return 250;
}
