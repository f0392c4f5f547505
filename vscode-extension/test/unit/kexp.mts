// The judge of the states of containers: k'exp's own table and sentence, as ui/src/common/repr.ts and
// ui/src/components/KubeObjectViewerPodContainers.vue of github.com/iximiuz/kexp have them at bb1bc8e (Apache-2.0). Only the
// types are ours.

export interface Status {
  name: string;
  ready?: boolean;
  started?: boolean;
  state?: {
    waiting?: { reason?: string; message?: string };
    running?: object;
    terminated?: { exitCode: number; reason?: string; message?: string };
  };
}

export interface ApiPod {
  status?: { initContainerStatuses?: Status[]; containerStatuses?: Status[]; ephemeralContainerStatuses?: Status[] };
}

type Kind = 'ephemeral' | 'init' | 'sidecar' | 'regular';

export interface ContainerStatusRepr {
  status: 'waiting' | 'starting' | 'not-ready' | 'ready' | 'terminated-ok' | 'terminated-ko' | 'unknown';
  title: string;
  reason?: string | undefined;
  message?: string | undefined;
}

export function reprContainerStatus(pod: ApiPod, name: string, opts?: { kind: Kind }): ContainerStatusRepr {
  if (!pod.status) {
    return { status: 'unknown', title: 'No Pod status field' };
  }

  const statuses = opts && (opts.kind === 'init' || opts.kind === 'sidecar')
    ? pod.status.initContainerStatuses
    : (opts && opts.kind === 'ephemeral')
      ? pod.status.ephemeralContainerStatuses
      : pod.status.containerStatuses;
  if (!statuses) {
    return { status: 'unknown', title: 'No container statuses field' };
  }

  const status = statuses.find((c) => c.name === name);
  if (!status || !status.state) {
    return { status: 'unknown', title: 'Container status not found' };
  }

  if (status.state.waiting) {
    return { status: 'waiting', title: 'Waiting', reason: status.state.waiting.reason, message: status.state.waiting.message };
  }

  if (opts && (opts.kind === 'init' || opts.kind === 'ephemeral') && status.state.running) {
    return { status: 'ready', title: 'Running' };
  }

  if (status.state.running && !status.started) {
    return { status: 'starting', title: 'Starting', reason: 'awaiting startup probe' };
  }

  if (status.state.running && !status.ready) {
    return { status: 'not-ready', title: 'Running but not ready' };
  }

  if (status.state.running && status.ready) {
    return { status: 'ready', title: 'Running and ready' };
  }

  if (status.state.terminated) {
    return {
      status: (status.state.terminated.exitCode === 0 ? 'terminated-ok' : 'terminated-ko'),
      title: (status.state.terminated.exitCode === 0 ? 'Terminated successfully' : 'Terminated with error'),
      reason: status.state.terminated.reason,
      message: status.state.terminated.message,
    };
  }

  return { status: 'unknown', title: 'unknown condition' };
}

export function containerTooltip(pod: ApiPod, name: string, kind: Kind): string {
  const status = reprContainerStatus(pod, name, { kind });
  const tooltip = [`${name}${kind === 'regular' ? '' : ` (${kind})`}: ${status.title}`];

  if (status.reason && status.message) {
    tooltip.push(`(${status.reason} - ${status.message})`);
  } else if (status.reason) {
    tooltip.push(`(${status.reason})`);
  } else if (status.message) {
    tooltip.push(`(${status.message})`);
  }

  return tooltip.join(' ');
}
