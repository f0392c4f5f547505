// The table of the commands: one function each.

import { connectionLog, copySsh, kube, open, openNew, page, showContainers, terminal } from './actions/connect';
import { connect } from './actions/enter';
import { browse, forward, unforward } from './actions/forward';
import { copyLink } from './actions/link';
import { destroy, extend, persist, rename, restart, stop, wake } from './actions/lifecycle';
import { followJournal, reboot, showConsole, startMachine, stopMachine } from './actions/machine';
import { debug, showCluster, showContainerLog, showSpec } from './actions/pod';
import { copyAddress, expose, exposePublicly, forwardPort, scan, unexpose } from './actions/ports';
import {
  account, clearFilter, configureSsh, doctor, download, filter, install, login, logout, refresh, report, settings, showLog, walkthrough,
} from './actions/setup';
import { start } from './actions/start';
import type { Subject } from './actions/target';
import type { Command } from './commands';
import type { Services } from './services';

export type { Subject } from './actions/target';

export const ACTIONS: Record<Command, (services: Services, subject: Subject) => Promise<void>> = {
  'playgrounds.start': start,
  'playgrounds.refresh': refresh,
  'playgrounds.connect': connect,
  'playgrounds.filter': filter,
  'playgrounds.clearFilter': clearFilter,
  'playgrounds.open': open,
  'playgrounds.openNew': openNew,
  'playgrounds.terminal': terminal,
  'playgrounds.wake': wake,
  'playgrounds.stop': stop,
  'playgrounds.restart': restart,
  'playgrounds.destroy': destroy,
  'playgrounds.extend': extend,
  'playgrounds.persist': persist,
  'playgrounds.rename': rename,
  'playgrounds.forward': forward,
  'playgrounds.browse': browse,
  'playgrounds.unforward': unforward,
  'playgrounds.forwardPort': forwardPort,
  'playgrounds.copyAddress': copyAddress,
  'playgrounds.expose': expose,
  'playgrounds.exposePublicly': exposePublicly,
  'playgrounds.unexpose': unexpose,
  'playgrounds.scan': scan,
  'playgrounds.reboot': reboot,
  'playgrounds.stopMachine': stopMachine,
  'playgrounds.startMachine': startMachine,
  'playgrounds.console': showConsole,
  'playgrounds.journal': followJournal,
  'playgrounds.kube': kube,
  'playgrounds.containers': showContainers,
  'playgrounds.cluster': showCluster,
  'playgrounds.containerLog': showContainerLog,
  'playgrounds.spec': showSpec,
  'playgrounds.debug': debug,
  'playgrounds.copySsh': copySsh,
  'playgrounds.copyLink': copyLink,
  'playgrounds.page': page,
  'playgrounds.connectionLog': connectionLog,
  'playgrounds.login': login,
  'playgrounds.logout': logout,
  'playgrounds.account': account,
  'playgrounds.log': showLog,
  'playgrounds.doctor': doctor,
  'playgrounds.report': report,
  'playgrounds.install': install,
  'playgrounds.download': download,
  'playgrounds.walkthrough': walkthrough,
  'playgrounds.configureSsh': configureSsh,
  'playgrounds.settings': settings,
};
