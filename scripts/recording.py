"""Types a session into a shell, records the terminal, and prints an animated SVG. Called by scripts/picture.

Everything on the screen is what the programs wrote, when they wrote it. Only pauses are shortened.
"""

import html
import sys
import time

import pexpect
import pyte

COLUMNS, ROWS = 86, 21
# The session: what is typed, the text that the screen shows once it is done, and the seconds to read it.
SESSION = [
    ("# playgrounds on this computer: LABCTL_SSH_PROXY_LOCAL=1", "$ ", 0.8),
    ("labctl-ssh-proxy list", "$ ", 2.0),
    ("ssh playground-duo", "# ", 1.2),
    ("echo 'it works' > notes; uname -s", "# ", 1.2),
    ("exit", "$ ", 1.0),
    ("scp playground-duo:notes . && cat notes", "$ ", 1.8),
    ("labctl-ssh-proxy open code duo --print", "$ ", 2.0),
    ("labctl-ssh-proxy list", "$ ", 3.0),
]
KEY = 0.045  # seconds from one key to the next, even where the recording computer is slower
LONGEST = 1.5  # a longer silence is cut to this
STEP = 0.04  # changes that follow sooner are one frame
CELL_WIDTH, CELL_HEIGHT, SIZE = 8.4, 18, 14
BACKGROUND, FOREGROUND = "#0d1117", "#e6edf3"
COLORS = {
    "black": "#484f58", "red": "#ff7b72", "green": "#3fb950", "brown": "#d29922", "blue": "#58a6ff",
    "magenta": "#bc8cff", "cyan": "#39c5cf", "white": "#e6edf3",
}


def record(command):
    """Runs the session. Returns the bytes that the terminal got, each with its time in seconds and
    True for the echo of a key."""
    child = pexpect.spawn(command[0], command[1:], dimensions=(ROWS, COLUMNS), echo=True, timeout=1)
    begun, shown, events, typing = time.monotonic(), pyte.Screen(COLUMNS, ROWS), [], False
    stream = pyte.ByteStream(shown)

    def listen(until, limit):
        end = time.monotonic() + limit
        while time.monotonic() < end:
            try:
                data = child.read_nonblocking(65536, 0.02)
            except pexpect.TIMEOUT:
                if until and until():
                    return
                continue
            except pexpect.EOF:
                return
            events.append((time.monotonic() - begun, data, typing))
            stream.feed(data)
        if until:
            sys.exit("recording: the session has stopped at:\n" + "\n".join(shown.display))

    def prompt(ending):
        line = shown.buffer[shown.cursor.y]
        before = "".join(line[x].data for x in range(shown.cursor.x))
        return before.endswith(ending) and len(before.strip()) < 30

    listen(lambda: prompt("$ "), 10)
    listen(None, 0.8)
    for text, ending, pause in SESSION:
        for key in text:
            child.send(key)
            listen(None, KEY)
            typing = True
        typing = False
        child.send("\r")
        listen(None, 0.25)
        listen(lambda: prompt(ending), 30)
        listen(None, pause)
    child.close(force=True)
    return events


def row(screen, y):
    """Returns the SVG of a line of the screen, without its position."""
    cells = [screen.buffer[y][x] for x in range(COLUMNS)]
    text = "".join(cell.data for cell in cells).rstrip()
    parts, x = [], 0
    while x < len(text):
        end, look = x, (cells[x].fg, cells[x].bold)
        while end < len(text) and (cells[end].fg, cells[end].bold) == look:
            end += 1
        words = text[x:end]
        start = x + len(words) - len(words.lstrip())
        words = words.strip()
        if words:
            color = COLORS.get(look[0].removeprefix("bright"), FOREGROUND) if look[0] != "default" else ""
            attributes = f' fill="{color}"' if color else ""
            attributes += ' font-weight="bold"' if look[1] else ""
            # The length holds the columns together in any font.
            length = len(words) * CELL_WIDTH
            parts.append(
                f'<text x="{start * CELL_WIDTH:g}" textLength="{length:g}"{attributes}>{html.escape(words, False)}</text>'
            )
        x = end
    return "".join(parts)


def frames(events):
    """Returns the screen at each change: its rows, its cursor, and the time for which it stands."""
    screen = pyte.Screen(COLUMNS, ROWS)
    stream, shown = pyte.ByteStream(screen), []
    now, last = 0.0, 0.0
    for at, data, typing in events:
        now += min(at - last, KEY if typing else LONGEST)
        last = at
        stream.feed(data)
        cursor = None if screen.cursor.hidden else (screen.cursor.x, screen.cursor.y)
        view = ([row(screen, y) for y in range(ROWS)], cursor)
        if shown and now - shown[-1][0] < STEP:
            shown[-1] = (shown[-1][0], view)
        elif not shown or shown[-1][1] != view:
            shown.append((now, view))
    return shown, now


def svg(shown, length):
    """Returns the animated picture: all screens below each other, of which one is seen at a time."""
    length += 4.0
    width, height = round(COLUMNS * CELL_WIDTH) + 32, ROWS * CELL_HEIGHT + 56
    step = ROWS * CELL_HEIGHT + CELL_HEIGHT
    rows, screens, steps = {}, [], []
    for n, (at, (lines, cursor)) in enumerate(shown):
        uses = []
        for y, line in enumerate(lines):
            if line:
                name = rows.setdefault(line, f"r{len(rows)}")
                uses.append(f'<use href="#{name}" y="{y * CELL_HEIGHT}"/>')
        if cursor:
            x, y = cursor[0] * CELL_WIDTH, cursor[1] * CELL_HEIGHT - 13
            uses.append(f'<rect x="{x:g}" y="{y}" width="8" height="16" class="c"/>')
        screens.append(f'<g transform="translate(0 {n * step})">{"".join(uses)}</g>')
        steps.append(f"{at / length * 100:.2f}%{{transform:translateY(-{n * step}px)}}")
    steps[0] = steps[0].replace(steps[0].split("{")[0], "0%", 1)
    final = (len(shown) - 1) * step
    defined = "".join(f'<g id="{name}">{line}</g>' for line, name in rows.items())
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">
<title>A terminal: ssh wakes a stopped playground, and scp copies a file out of it</title>
<style>
text{{font:{SIZE}px ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono","Liberation Mono",monospace;white-space:pre}}
.c{{fill:{FOREGROUND};opacity:.6}}
#s{{transform:translateY(-{final}px);animation:s {length:.2f}s steps(1,end) infinite}}
@keyframes s{{{"".join(steps)}100%{{transform:translateY(-{final}px)}}}}
@media (prefers-reduced-motion:reduce){{#s{{animation:none}}}}
</style>
<defs>{defined}</defs>
<rect width="{width}" height="{height}" rx="8" fill="{BACKGROUND}"/>
<circle cx="20" cy="18" r="6" fill="#ff5f57"/><circle cx="40" cy="18" r="6" fill="#febc2e"/><circle cx="60" cy="18" r="6" fill="#28c840"/>
<svg x="16" y="36" width="{round(COLUMNS * CELL_WIDTH)}" height="{ROWS * CELL_HEIGHT + 4}"><g transform="translate(0 14)"><g id="s" fill="{FOREGROUND}">
{"".join(screens)}
</g></g></svg>
</svg>"""


print(svg(*frames(record(sys.argv[1:]))))
