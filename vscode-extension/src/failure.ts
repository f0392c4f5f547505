// Failures as the user sees them, and their reader: the failure of a process of the binary that has ended.

/** The name of the binary. Its own lines on standard error begin with it. */
export const NAME = 'labctl-ssh-proxy';

/** The kind of a failure. `failed` is any kind that the extension does not treat specially. */
export type Kind = 'no-binary' | 'no-release' | 'old-binary' | 'timeout' | 'bad-output' | 'cancelled' | 'not-logged-in' | 'failed';

/** The binary's kinds that the extension treats specially, by their names in JSON. A test compares the names with the binary's. */
export const BINARY_KINDS: ReadonlyMap<string, Kind> = new Map([
  ['not-logged-in', 'not-logged-in'],
  ['interrupted', 'cancelled'],
]);

/** The binary's kinds that may pass by themselves. A gateway that answers in the platform's place is `answer`. */
export const PASSING: ReadonlySet<string> = new Set(['network', 'not-yet', 'answer', 'interrupted']);

/** A failure as the user sees it: a sentence, and a hint at what to do. Both lack the capital letter and the full stop. */
export class Failure extends Error {
  constructor(
    readonly kind: Kind,
    message: string,
    readonly hint = '',
    /** True if the binary has described it, and would meet it again until something else changes. */
    readonly isFinal = false,
  ) {
    super(message);
  }

  /** The sentences for the user. */
  get text(): string {
    return [this.message, this.hint].filter((part) => part !== '').map(sentence).join(' ');
  }

  static from(error: unknown): Failure {
    if (error instanceof Failure) return error;
    return new Failure('failed', error instanceof Error ? error.message : String(error));
  }
}

/** Ends a text with a full stop, and begins it with a capital letter unless the first word is a name or a path. */
export function sentence(text: string): string {
  const capitalized = text.replace(/^[a-z]+(?=[\s,;:]|$)/, (word) => `${word.charAt(0).toUpperCase()}${word.slice(1)}`);
  return /[.!?]$/.test(capitalized) ? capitalized : `${capitalized}.`;
}

export const cancelled = (): Failure => new Failure('cancelled', 'cancelled');

/** Returns the failure that the binary describes in JSON. */
export function describedFailure(kind: string, message: string, hint: string): Failure {
  return unknownWord(message) ?? new Failure(BINARY_KINDS.get(kind) ?? 'failed', message, hint, !PASSING.has(kind));
}

/** The failure of an older binary, whose parser does not know a command or an option of this extension. */
function unknownWord(message: string): Failure | undefined {
  const word = /^(?:error: )?(?:unrecognized subcommand|unexpected argument) '([^']+)'/.exec(message)?.[1];
  if (word === undefined) return undefined;
  return new Failure('old-binary', `the installed ${NAME} is too old for this: it does not know \`${word}\``, 'update it');
}

/** The end of a process. */
export interface Exit {
  /** The last line of standard output. */
  lastLine: string;
  stderr: string;
  code: number | null;
  signal: NodeJS.Signals | null;
}

/**
 * Reads the failure of a process of the binary. With `--json` the binary describes it in the last line of standard output:
 * `{"error":{"kind":"not-logged-in","message":"...","hint":"..."}}`. A crash or an older binary prints no such line. Its
 * failure is the text of standard error, of no special kind, because an exit status is ambiguous.
 */
export function readFailure(exit: Exit): Failure {
  const { lastLine, stderr, code, signal } = exit;
  return fromJson(lastLine) ?? fromSignal(signal) ?? fromText(stderr) ?? fromStatus(code);
}

function fromJson(line: string): Failure | undefined {
  let value: { machine?: unknown; error?: { kind?: unknown; message?: unknown; hint?: unknown } | null } | null;
  try {
    value = JSON.parse(line) as typeof value;
  } catch {
    return undefined;
  }
  // A line about a machine is news, after which the binary went on.
  if (value?.machine !== undefined) return undefined;
  const { kind, message, hint } = value?.error ?? {};
  if (typeof message !== 'string' || message === '') return undefined;
  return describedFailure(typeof kind === 'string' ? kind : '', message, typeof hint === 'string' ? hint : '');
}

/** The failure of a process that was killed. Its standard error is ignored, because its last line is about the progress. */
function fromSignal(signal: NodeJS.Signals | null): Failure | undefined {
  return signal === null ? undefined : new Failure('failed', `${NAME} was killed by ${signal}`);
}

/**
 * The failure in the text of standard error: the last line that begins with the name of the binary, because those before it
 * are about the progress, and the hint that may follow it. Without such a line it is the first line, because crashes and
 * usage errors put the reason first.
 */
function fromText(stderr: string): Failure | undefined {
  const lines = stderr.split(/\r?\n/).filter((line) => line.trim() !== '');
  const at = lines.findLastIndex((line) => line.startsWith(`${NAME}: `));
  const message = at < 0 ? lines[0] : lines[at]?.slice(`${NAME}: `.length);
  if (message === undefined) return undefined;
  const hint = lines.slice(at + 1).find((line) => line.startsWith('hint: '));
  return unknownWord(message) ?? new Failure('failed', message, hint?.slice('hint: '.length));
}

const fromStatus = (code: number | null): Failure => new Failure('failed', `${NAME} ended with exit status ${code ?? 'unknown'}`);
