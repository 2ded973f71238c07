/** Enough to share the cost, and few enough that the first does not wait long for the last. */
const MAX_DUE = 32

let due: (() => void)[] = []
let isScheduled = false

/**
 * Runs something at the end of this turn of the event loop, or once 32 such things are due. What many requests do one after
 * another is cheaper than what they do in between each other: the processor has the code at hand, and whoever reads at the
 * other end is woken once.
 */
export function atEndOfTurn(run: () => void): void {
  due.push(run)
  if (due.length >= MAX_DUE) return runDue()
  if (isScheduled) return
  isScheduled = true
  setImmediate(endTurn)
}

function endTurn(): void {
  isScheduled = false
  runDue()
}

function runDue(): void {
  const now = due
  due = []
  for (const run of now) run()
}
