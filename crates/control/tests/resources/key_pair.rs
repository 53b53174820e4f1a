use crate::cloud::Cloud;

#[tokio::test]
async fn a_key_pair_is_made_found_and_deleted() {
    let cloud = Cloud::start().await;
    let made = cloud.ok("CreateKeyPair", &[("KeyName", "me"), ("KeyType", "ed25519")]).await;
    assert!(made.one("keyMaterial").starts_with("-----BEGIN OPENSSH PRIVATE KEY-----"));
    let id = made.one("keyPairId");
    let name = [("KeyName.1", "me")];
    assert_eq!(cloud.ok("DescribeKeyPairs", &name).await.all("keyPairId"), [id]);
    assert!(cloud.ok("DescribeKeyPairs", &name).await.all("publicKey").is_empty());
    let with_key = cloud.ok("DescribeKeyPairs", &[("KeyPairId.1", id), ("IncludePublicKey", "true")]).await;
    assert!(
        with_key.one("publicKey").starts_with("ssh-ed25519 ") && with_key.one("publicKey").ends_with(" me")
    );
    assert_eq!(
        cloud.call("CreateKeyPair", &[("KeyName", "me")]).await.unwrap_err(),
        "InvalidKeyPair.Duplicate"
    );

    assert_eq!(cloud.ok("DeleteKeyPair", &[("KeyName", "me")]).await.one("keyPairId"), id);
    assert!(cloud.ok("DeleteKeyPair", &[("KeyName", "me")]).await.all("keyPairId").is_empty());
    assert_eq!(cloud.call("DescribeKeyPairs", &name).await.unwrap_err(), "InvalidKeyPair.NotFound");
    cloud.ok("CreateKeyPair", &[("KeyName", "me"), ("KeyType", "ed25519"), ("KeyFormat", "ppk")]).await;
}

#[tokio::test]
async fn an_imported_key_has_a_name_within_bounds() {
    let cloud = Cloud::start().await;
    // "ssh-ed25519 …" in base64, as the API wants it.
    let line = "c3NoLWVkMjU1MTkgQUFBQUMzTnphQzFsWkRJMU5URTVBQUFBSU83T3crSVdBQTEvNzA2UkVMNHY0NW1wYTVSUCttK2xSSThsemtIcE45dU4=";
    let import = async |name: &str| {
        cloud.call("ImportKeyPair", &[("KeyName", name), ("PublicKeyMaterial", line)]).await
    };
    let imported = import("imported").await.unwrap();
    assert_eq!(imported.one("keyFingerprint"), "h7Pu+mSu/45WymlzCmurvu9AG55yHjpEKEx3it9VB4s=");
    for name in [" me", "mé", &"x".repeat(256)] {
        assert_eq!(import(name).await.unwrap_err(), "InvalidParameterValue", "{name}");
    }
    assert!(import(&"x".repeat(255)).await.is_ok());
    let bad = [("KeyName", "bad"), ("PublicKeyMaterial", "aGVsbG8=")];
    assert_eq!(cloud.call("ImportKeyPair", &bad).await.unwrap_err(), "InvalidKey.Format");
}

#[tokio::test]
async fn all_key_pairs_are_described_however_many() {
    let cloud = Cloud::start().await;
    let line = "c3NoLWVkMjU1MTkgQUFBQUMzTnphQzFsWkRJMU5URTVBQUFBSU83T3crSVdBQTEvNzA2UkVMNHY0NW1wYTVSUCttK2xSSThsemtIcE45dU4=";
    for number in 0..1001 {
        let name = format!("key-{number}");
        cloud.ok("ImportKeyPair", &[("KeyName", &name), ("PublicKeyMaterial", line)]).await;
    }
    assert_eq!(cloud.ok("DescribeKeyPairs", &[]).await.all("keyName").len(), 1001);
}
