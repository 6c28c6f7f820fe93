//! Domains of the driver that needs no host, for the tests of this crate.

use uuid::Uuid;
use virt::domain::Domain as Raw;

use crate::{Connection, Domain};

pub(crate) async fn connect() -> Connection {
    Connection::open(Some("test:///default")).await.unwrap()
}

/// A domain of its own name and UUID: all connections of a process see one host.
pub(crate) struct Machine {
    pub(crate) connection: Connection,
    pub(crate) name: String,
    pub(crate) uuid: Uuid,
}

impl Machine {
    pub(crate) fn planned(connection: Connection, name: &str) -> Self {
        let uuid = Uuid::new_v4();
        Self {
            connection,
            name: format!("{name}-{}", uuid.simple()),
            uuid,
        }
    }

    pub(crate) async fn define(name: &str, devices: &str) -> Self {
        let machine = Self::planned(connect().await, name);
        machine.define_with(devices).await;
        machine
    }

    pub(crate) fn xml(&self, devices: &str) -> String {
        format!(
            "<domain type='test'><name>{}</name><uuid>{}</uuid><memory>8192</memory>\
             <os><type>hvm</type></os><devices>{devices}</devices></domain>",
            self.name, self.uuid
        )
    }

    pub(crate) async fn define_with(&self, devices: &str) {
        let xml = self.xml(devices);
        self.connection
            .ask(&self.name, "define", move |c| {
                Raw::define_xml(c, &xml).map(drop)
            })
            .await
            .unwrap();
    }

    pub(crate) async fn create_transient(&self) {
        let xml = self.xml("");
        self.connection
            .ask(&self.name, "create", move |c| {
                Raw::create_xml(c, &xml, 0).map(drop)
            })
            .await
            .unwrap();
    }

    pub(crate) async fn domain(&self) -> Domain {
        self.connection.lookup_uuid(self.uuid).await.unwrap()
    }

    pub(crate) async fn start(&self) {
        let start = |d: &Raw, _: &_| d.create().map(drop);
        self.domain().await.ask("start", start).await.unwrap();
    }

    pub(crate) async fn destroy(&self) {
        let destroy = |d: &Raw, _: &_| d.destroy();
        self.domain().await.ask("destroy", destroy).await.unwrap();
    }
}
