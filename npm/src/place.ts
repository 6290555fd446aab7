// Where a question was asked, as an id that any page and any process can go on from: nobody has to remember the run.

export interface Place {
  runId: string;
  /** The position of the event that asked. */
  seq: number;
  requestId: string;
  isApproval: boolean;
}

export function written({ runId, seq, requestId, isApproval }: Place): string {
  return `${runId}/${seq}/${requestId}/${isApproval ? "approval" : "question"}`;
}

/** Reads such an id; nothing if it is another's. */
export function read(id: string): Place | undefined {
  const [runId, seq, requestId, kind, ...rest] = id.split("/");
  if (!runId || !requestId || !Number(seq) || !kind || rest.length) return undefined;
  return { runId, seq: Number(seq), requestId, isApproval: kind === "approval" };
}
