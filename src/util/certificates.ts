import { X509Certificate } from 'node:crypto'

/** Whether a text holds certificates, each of them whole: OpenSSL passes over what it cannot read, and then trusts nobody. */
export function holdsCertificates(pem: string): boolean {
  const begun = pem.split('-----BEGIN CERTIFICATE-----').length - 1
  const whole = pem.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? []
  try {
    return begun > 0 && whole.length === begun && whole.every((one) => new X509Certificate(one).raw.length > 0)
  } catch {
    return false
  }
}
