/** Generous figures for V8 on 64 bits: what was measured with claims of many shapes, rounded up. */
const STRING_BYTES = 24
const NUMBER_BYTES = 16
const ARRAY_BYTES = 64
const OBJECT_BYTES = 120
const MEMBER_BYTES = 40

/**
 * About how much memory a value made of JSON takes, in bytes: rather too much than too little. Walks it without recursion,
 * because claims may be nested deeper than the stack is.
 */
export function estimateBytes(value: unknown): number {
  let bytes = 0
  const open: unknown[] = [value]
  while (open.length > 0) {
    const next = open.pop()
    if (typeof next === 'string') bytes += textBytes(next)
    else if (typeof next !== 'object' || next === null) bytes += NUMBER_BYTES
    else if (Array.isArray(next)) {
      bytes += ARRAY_BYTES + 8 * next.length
      for (const element of next) open.push(element)
    } else {
      bytes += OBJECT_BYTES
      for (const [name, member] of Object.entries(next)) {
        bytes += MEMBER_BYTES + textBytes(name)
        open.push(member)
      }
    }
  }
  return bytes
}

/** A string takes two bytes a character as soon as one of them is beyond Latin-1. */
function textBytes(text: string): number {
  return STRING_BYTES + (/[^\0-\xff]/.test(text) ? 2 * text.length : text.length)
}
