// The names that package.json declares, too. A test compares the two.

export const COMMANDS = [
  'playgrounds.start',
  'playgrounds.refresh',
  'playgrounds.connect',
  'playgrounds.filter',
  'playgrounds.clearFilter',
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
  'playgrounds.forwardPort',
  'playgrounds.copyAddress',
  'playgrounds.expose',
  'playgrounds.exposePublicly',
  'playgrounds.unexpose',
  'playgrounds.scan',
  'playgrounds.reboot',
  'playgrounds.stopMachine',
  'playgrounds.startMachine',
  'playgrounds.console',
  'playgrounds.journal',
  'playgrounds.kube',
  'playgrounds.containers',
  'playgrounds.cluster',
  'playgrounds.containerLog',
  'playgrounds.spec',
  'playgrounds.debug',
  'playgrounds.copySsh',
  'playgrounds.copyLink',
  'playgrounds.page',
  'playgrounds.connectionLog',
  'playgrounds.login',
  'playgrounds.logout',
  'playgrounds.account',
  'playgrounds.log',
  'playgrounds.doctor',
  'playgrounds.report',
  'playgrounds.install',
  'playgrounds.download',
  'playgrounds.walkthrough',
  'playgrounds.configureSsh',
  'playgrounds.settings',
] as const;

export type Command = (typeof COMMANDS)[number];

/** The title of the command `playgrounds.persist`. */
export const MAKE_PERSISTENT = 'Make Persistent';

export const VIEW = 'playgrounds.list';
/** The context key that selects the view's welcome. */
export const SITUATION = 'playgrounds.situation';
/** The context keys that complete the steps of the walkthrough. */
export const STEPS = {
  hasProgram: 'playgrounds.hasProgram',
  isLoggedIn: 'playgrounds.isLoggedIn',
  isConfigured: 'playgrounds.isConfigured',
  hasPlayground: 'playgrounds.hasPlayground',
} as const;
/** The context key that shows the button which ends the filter. */
export const FILTERED = 'playgrounds.isFiltered';
/** The id of the walkthrough, after that of the extension. */
export const WALKTHROUGH = 'begin';
/** The section of the settings. */
export const SECTION = 'playgrounds';
export const SETTINGS = ['binary', 'local', 'warnBeforeEnd', 'slowLatency'] as const;
