// The commands, in one list: a test compares it with package.json.

export const COMMANDS = [
  'playgrounds.start',
  'playgrounds.refresh',
  'playgrounds.open',
  'playgrounds.openNew',
  'playgrounds.terminal',
  'playgrounds.wake',
  'playgrounds.stop',
  'playgrounds.restart',
  'playgrounds.destroy',
  'playgrounds.extend',
  'playgrounds.persist',
  'playgrounds.rename',
  'playgrounds.forward',
  'playgrounds.browse',
  'playgrounds.unforward',
  'playgrounds.kube',
  'playgrounds.copySsh',
  'playgrounds.page',
  'playgrounds.login',
  'playgrounds.log',
  'playgrounds.doctor',
  'playgrounds.install',
  'playgrounds.settings',
] as const;

export type Command = (typeof COMMANDS)[number];

/** The title of the command `playgrounds.persist`. */
export const KEEP = 'Keep When Its Time Is Up';

/** The view. */
export const VIEW = 'playgrounds.list';
/** The context key that chooses the view's welcome. */
export const SITUATION = 'playgrounds.situation';
/** The section of the settings, and its keys. */
export const SECTION = 'playgrounds';
export const SETTINGS = ['binary', 'local', 'warnBeforeEnd'] as const;
