import { pattern } from './fields.ts'

/** A name that becomes a label in logs and metrics. */
export const NAME = /^[a-z0-9][a-z0-9._-]{0,62}$/
const KIND = 'a lower-case name of letters, digits, ".", "_" and "-"'

/** A setting that holds such a name. */
export const name = (description: string) => pattern(description, KIND, NAME)
