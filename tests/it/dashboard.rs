//! Somebody who visits a dashboard: a browser before a broker, and the ways in.

use reqwest::Method;
use serde_json::Value;

use crate::{
    broker::{READER, TestBroker, answer, encoded, text},
    chromium::Chromium,
};

/// Everything that a page brings along, its document included, in bytes.
pub const WEIGHT_MAX: u64 = 100_000;

/// A browser before a broker.
pub struct Visit {
    pub page: Chromium,
    pub broker: TestBroker,
}

impl Visit {
    /// A new browser before `broker`.
    pub async fn to(broker: TestBroker) -> Self {
        let page = Chromium::start().await;
        Self { page, broker }
    }

    /// The address of something below the dashboard.
    pub fn url(&self, path: &str) -> String {
        format!("{}/dashboard{path}", self.broker.url)
    }

    /// The address of something of an instance.
    pub fn url_of(&self, instance: &str, path: &str) -> String {
        self.url(&format!("/instances/{}{path}", encoded(instance)))
    }

    /// Goes to a page of an instance.
    pub async fn open(&self, instance: &str, path: &str) {
        self.page.open(&self.url_of(instance, path)).await;
    }

    /// Signs in with the token that a binding's credentials hold.
    pub async fn sign_in(&self, credentials: &Value) {
        let token = text(&credentials["instance_administration_api"]["token"]);
        self.page.open(&self.url("/sign-in")).await;
        self.show_token(token).await;
        self.page.find("#sign-out").await;
    }

    /// Fills in the form for tokens and sends it.
    pub async fn show_token(&self, token: &str) {
        self.page.find("#token").await.fill(token).await;
        self.page
            .click_in("#sign-in-token", "button", "Sign in")
            .await;
    }

    /// Signs in as the operator.
    pub async fn sign_in_as_operator(&self) {
        let (username, password) = self.broker.platform();
        self.page.open(&self.url("/sign-in")).await;
        self.show_password(username, password).await;
        self.page.find("#sign-out").await;
    }

    /// Signs in as somebody who reads what the operator reads.
    pub async fn sign_in_as_reader(&self) {
        let (username, password) = READER;
        self.page.open(&self.url("/sign-in")).await;
        self.show_password(username, password).await;
        self.page.find("#sign-out").await;
    }

    /// Fills in the form for the broker's own credentials and sends it.
    pub async fn show_password(&self, username: &str, password: &str) {
        self.page.find("#username").await.fill(username).await;
        self.page.find("#password").await.fill(password).await;
        self.page
            .click_in("#sign-in-operator", "button", "Sign in")
            .await;
    }

    /// The page is sound, and a first visit of it is light.
    pub async fn check(&self) {
        self.page.check(&self.broker.url).await;
        let url = self.page.url().await;
        let weight = self.page.weight_of(&url).await;
        assert!(weight <= WEIGHT_MAX, "{weight} bytes for {url}");
        self.page.check(&self.broker.url).await;
    }

    /// The backups of an instance as the API lists them, newest first.
    pub async fn backups(&self, credentials: &Value) -> Vec<Value> {
        let path = format!(
            "/deployments/{}/backups",
            text(&credentials["deployment_id"])
        );
        let mut list = answer(self.broker.compose(Method::GET, credentials, &path)).await;
        serde_json::from_value(list.body["_embedded"]["backups"].take()).expect("a list")
    }
}
