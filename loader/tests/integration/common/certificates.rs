//! Certificates made for tests.

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType, IsCa,
    KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};

/// A CA. CAs from `new` share one name, so only their keys tell them apart.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// Years of validity, from the first January to the second.
type Years = (i32, i32);

/// Valid whenever tests run.
const NOW: Years = (2020, 4000);

impl Authority {
    /// Creates a new CA.
    pub(crate) fn new() -> Self {
        Self(CertifiedIssuer::self_signed(ca("Some CA", NOW), KeyPair::generate().unwrap()).unwrap())
    }

    /// Creates an intermediate CA signed by this CA, with serial number 7.
    pub(crate) fn intermediate(&self) -> Self {
        let mut params = ca("Some other CA", NOW);
        params.serial_number = Some(SerialNumber::from(7));
        Self(CertifiedIssuer::signed_by(params, KeyPair::generate().unwrap(), &self.0).unwrap())
    }

    /// Creates an issuer whose certificate isn't marked as a CA, like a server's certificate.
    pub(crate) fn that_is_none() -> Self {
        let params = params("No CA", &["localhost"], NOW);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Returns an expired certificate for this CA's key.
    pub(crate) fn expired_certificate(&self) -> String {
        ca("Some CA", (2010, 2012)).self_signed(self.0.key()).unwrap().pem()
    }

    /// Returns the CA's own certificate.
    pub(crate) fn certificate(&self) -> String {
        self.0.pem()
    }

    /// Signs a certificate that is valid now, with serial number 7.
    pub(crate) fn sign(&self, common_name: &str, names: &[&str], key: &KeyPair) -> String {
        self.sign_for(NOW, common_name, names, key)
    }

    /// Signs a certificate for `years`, with serial number 7.
    pub(crate) fn sign_for(&self, years: Years, common_name: &str, names: &[&str], key: &KeyPair) -> String {
        let mut params = params(common_name, names, years);
        params.serial_number = Some(SerialNumber::from(7));
        params.signed_by(key, &self.0).unwrap().pem()
    }

    /// Returns a CRL that revokes `serial`. All certificates that `sign` and `intermediate` make have serial number 7.
    pub(crate) fn revocations(&self, serial: u64) -> String {
        self.revocations_of(2021, serial)
    }

    /// Returns a CRL issued in `year` that revokes `serial`.
    pub(crate) fn revocations_of(&self, year: i32, serial: u64) -> String {
        let revoked = RevokedCertParams {
            serial_number: SerialNumber::from(serial),
            revocation_time: date_time_ymd(2021, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(year, 1, 1),
            next_update: date_time_ymd(NOW.1, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.0).unwrap().pem().unwrap()
    }
}

/// Creates a self-signed certificate that is marked as a CA, like the output of `openssl req -x509`.
pub(crate) fn self_signed(names: &[&str], key: &KeyPair) -> String {
    let mut params = params("localhost", names, NOW);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.self_signed(key).unwrap().pem()
}

fn ca(common_name: &str, years: Years) -> CertificateParams {
    let mut params = params(common_name, &[], years);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn params(common_name: &str, names: &[&str], years: Years) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.not_before = date_time_ymd(years.0, 1, 1);
    params.not_after = date_time_ymd(years.1, 1, 1);
    params
}
