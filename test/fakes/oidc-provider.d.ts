/** The part of oidc-provider that the development authorization server uses; the package ships no types. */
declare module 'oidc-provider' {
  import type { IncomingMessage, ServerResponse } from 'node:http'

  interface Grant {
    addOIDCScope(scope: string): void
    addResourceScope(resource: string, scope: string): void
    save(): Promise<string>
  }
  interface Model {
    save(): Promise<string>
  }
  export default class Provider {
    constructor(issuer: string, configuration: Record<string, unknown>)
    callback(): (request: IncomingMessage, response: ServerResponse) => void
    on(event: string, listener: (...args: unknown[]) => void): this
    readonly Client: { find(id: string): Promise<object | undefined> }
    readonly Grant: new (properties: Record<string, unknown>) => Grant
    readonly DeviceCode: {
      findByUserCode(userCode: string): Promise<(Model & { readonly clientId: string }) | undefined>
    }
    readonly AuthorizationCode: new (properties: Record<string, unknown>) => Model
    readonly RefreshToken: new (properties: Record<string, unknown>) => Model
  }
}

declare module 'oidc-provider/lib/adapters/memory_adapter.js' {
  /** The package's own store in memory, made by hand so that it does not warn about being the default. */
  export function createMemoryAdapter(clockTolerance: number): new () => object
}
